"""Versions of a model: list, read, download, deprecate, archive, restore; aliases."""

from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from typing import ClassVar

from asgiref.sync import sync_to_async
from django.http import HttpRequest, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.policies import Action
from apps.accounts.selectors import actor_of
from apps.core import events, storage
from apps.core.api.pagination import NewestFirst
from apps.core.api.schema import problems
from apps.core.errors import NotFound, Unavailable
from apps.registry import selectors
from apps.registry.api.reach import model_for
from apps.registry.api.serializers import (
    AliasSerializer,
    AliasWishSerializer,
    ReasonSerializer,
    VersionSerializer,
)
from apps.registry.models import Alias, Artifact, ModelVersion, RegisteredModel
from apps.registry.services import aliases, lifecycle
from apps.registry.states import VersionState


def _reason(request: Request) -> str:
    form = ReasonSerializer(data=request.data or {})
    form.is_valid(raise_exception=True)
    return str(form.validated_data["reason"])


def _said(version: ModelVersion, request: Request) -> Response:
    return Response(VersionSerializer(version, context={"request": request}).data)


class VersionsView(APIView):
    @extend_schema(
        operation_id="list_versions",
        summary="The versions of a model, newest first",
        parameters=[
            OpenApiParameter("state", str, enum=[one.value for one in VersionState]),
        ],
        responses={200: VersionSerializer(many=True), **problems(401, 403, 404)},
        tags=["versions"],
    )
    def get(self, request: Request, model: str) -> Response:
        found = selectors.versions_of(model_for(caller(request), model, Action.MODEL_READ))
        if state := request.query_params.get("state", "").replace("\x00", ""):
            found = found.filter(state=state)
        pages = NewestFirst()
        page = pages.paginate_queryset(found, request, view=self)
        body = VersionSerializer(page, many=True, context={"request": request}).data
        return pages.get_paginated_response(body)


class VersionView(APIView):
    @extend_schema(
        operation_id="read_version",
        summary="One version, with its report",
        responses={200: VersionSerializer, **problems(401, 403, 404)},
        tags=["versions"],
    )
    def get(self, request: Request, model: str, number: int) -> Response:
        found = model_for(caller(request), model, Action.MODEL_READ)
        return _said(selectors.find_version(found, number), request)


class _MoveView(APIView):
    """One move of a version, with a reason."""

    move: ClassVar[Callable[..., ModelVersion]]

    def post(self, request: Request, model: str, number: int) -> Response:
        who = caller(request)
        found = selectors.find_version(model_for(who, model, Action.VERSION_MOVE), number)
        moved = type(self).move(found, actor=actor_of(who), reason=_reason(request))
        return _said(moved, request)


def _documented(name: str, summary: str) -> Callable[[type[_MoveView]], type[_MoveView]]:
    return extend_schema_view(
        post=extend_schema(
            operation_id=f"{name}_version",
            summary=summary,
            request=ReasonSerializer,
            responses={200: VersionSerializer, **problems(400, 401, 403, 404, 409)},
            tags=["versions"],
        )
    )


@_documented("deprecate", "Warn people off a version; what it serves it goes on serving")
class DeprecateView(_MoveView):
    move = staticmethod(lifecycle.deprecate)


@_documented("archive", "Take a version out of use; refused while it serves")
class ArchiveView(_MoveView):
    move = staticmethod(lifecycle.archive)


@_documented("restore", "Bring a deprecated or archived version back to ready")
class RestoreView(_MoveView):
    move = staticmethod(lifecycle.restore)


class ArtifactView(APIView):
    @extend_schema(
        operation_id="download_artifact",
        summary="The file of a version, as it was uploaded or as it is served",
        parameters=[
            OpenApiParameter("role", str, enum=list(Artifact.Role.values), default="original")
        ],
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            **problems(401, 403, 404, 503),
        },
        tags=["versions"],
    )
    def get(self, request: Request, model: str, number: int) -> StreamingHttpResponse:
        who = caller(request)
        version = selectors.find_version(model_for(who, model, Action.VERSION_DOWNLOAD), number)
        role = request.query_params.get("role", Artifact.Role.ORIGINAL.value)
        artifact = Artifact.objects.filter(
            version=version, role=role.replace("\x00", "")[:20]
        ).first()
        if artifact is None:
            raise NotFound(
                f"{version} has no such file; files are kept when validation found them good."
            )
        if not storage.artifacts().exists(artifact.key):
            raise Unavailable(f"The file of {version} is not in the artifact store at present.")
        reply = StreamingHttpResponse(
            _parts(request._request, artifact.key),  # noqa: SLF001 - DRF's name for Django's
            content_type="application/octet-stream",
            headers={
                "Content-Length": str(artifact.size),
                "Content-Disposition": _attachment(version, role),
                "X-Content-Type-Options": "nosniff",
                "ETag": f'"{artifact.sha256}"',
            },
        )
        events.record(
            "version.downloaded",
            actor=actor_of(who),
            target=version,
            team_id=version.model.team_id,
            role=role,
            sha256=artifact.sha256,
            bytes=artifact.size,
        )
        return reply


def _attachment(version: ModelVersion, role: str) -> str:
    """Name the download ourselves: the uploader's file name is a stranger's text."""
    endings = {
        "onnx": ".onnx",
        "pickle": ".pkl",
        "joblib": ".joblib",
        "skops": ".skops",
        "torchscript": ".pt",
        "pt2": ".pt2",
    }
    is_converted = role == Artifact.Role.SERVED and version.runtime == "onnx"
    kind = "onnx" if is_converted else version.container
    ending = ".json" if role == Artifact.Role.METADATA else endings.get(kind, ".bin")
    return f'attachment; filename="{version.model.name}-{version.number}{ending}"'


def _parts(request: HttpRequest, key: str) -> Iterator[bytes] | AsyncIterator[bytes]:
    """Stream a file; below ASGI Django would gather a plain iterator in memory first.

    It is opened with the first part, so that a reply nobody reads leaves nothing open.
    """
    return _later(key) if hasattr(request, "scope") else _now(key)


def _now(key: str) -> Iterator[bytes]:
    with storage.opened(key) as file:
        while part := file.read(storage.CHUNK):
            yield part


async def _later(key: str) -> AsyncIterator[bytes]:
    file = await sync_to_async(storage.artifacts().open, thread_sensitive=False)(key, "rb")
    try:
        while part := await sync_to_async(file.read, thread_sensitive=False)(storage.CHUNK):
            yield part
    finally:
        file.close()


class AliasView(APIView):
    @extend_schema(
        operation_id="read_alias",
        summary="The version that an alias points to",
        responses={200: AliasSerializer, **problems(401, 403, 404)},
        tags=["versions"],
    )
    def get(self, request: Request, model: str, alias: str) -> Response:
        found = model_for(caller(request), model, Action.MODEL_READ)
        return Response(AliasSerializer(_alias(found, alias)).data)

    @extend_schema(
        operation_id="set_alias",
        summary="Point an alias at a version",
        request=AliasWishSerializer,
        responses={200: AliasSerializer, **problems(400, 401, 403, 404, 409)},
        tags=["versions"],
    )
    def put(self, request: Request, model: str, alias: str) -> Response:
        who = caller(request)
        found = model_for(who, model, Action.ALIAS_WRITE)
        form = AliasWishSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        wish = form.validated_data
        pointed = aliases.set_alias(
            found,
            alias,
            version=wish["version"],
            actor=actor_of(who),
            reason=wish["reason"],
        )
        return Response(AliasSerializer(pointed).data)

    @extend_schema(
        operation_id="remove_alias",
        summary="Forget an alias; the version stays",
        request=None,
        responses={204: OpenApiResponse(description="Removed"), **problems(401, 403, 404)},
        tags=["versions"],
    )
    def delete(self, request: Request, model: str, alias: str) -> Response:
        who = caller(request)
        found = model_for(who, model, Action.ALIAS_WRITE)
        aliases.remove_alias(_alias(found, alias), actor=actor_of(who))
        return Response(status=HTTPStatus.NO_CONTENT)


def _alias(model: RegisteredModel, name: str) -> Alias:
    return selectors.find_alias(model, name.replace("\x00", ""))
