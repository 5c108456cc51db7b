"""Endpoints of a model: what is live, its history; release, approve, reject, roll back."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.callers import Caller
from apps.accounts.policies import Action
from apps.accounts.selectors import actor_of
from apps.core.api.pagination import NewestFirst
from apps.core.api.schema import problems
from apps.registry import selectors
from apps.registry.api.moments import moment_of
from apps.registry.api.reach import model_for
from apps.registry.api.serializers import (
    EndpointSerializer,
    ReasonSerializer,
    ReleaseSerializer,
    ReleaseWishSerializer,
    RollbackWishSerializer,
)
from apps.registry.models import Endpoint, Release
from apps.registry.services import releases
from apps.registry.snapshot import Arm, ArmRole
from apps.registry.states import Environment, ReleaseState

NEWEST = 20


def _endpoint(who: Caller, model: str, environment: str, action: Action) -> Endpoint:
    known = environment if environment in frozenset(Environment) else None
    found = model_for(who, model, action, known)
    return selectors.find_endpoint(found, environment.replace("\x00", ""))


class EndpointView(APIView):
    @extend_schema(
        operation_id="read_endpoint",
        summary="What serves in an environment, and how it came to that",
        description="With `at`, the answer's `served_at` says what served at that moment.",
        parameters=[
            OpenApiParameter(
                "at",
                OpenApiTypes.DATETIME,
                description="A moment, ISO 8601; without a zone it is UTC.",
            )
        ],
        responses={200: EndpointSerializer, **problems(400, 401, 403, 404)},
        tags=["releases"],
    )
    def get(self, request: Request, model: str, environment: str) -> Response:
        # Reading is not bound to environments: a production key may look at staging.
        found = model_for(caller(request), model, Action.MODEL_READ)
        endpoint = selectors.find_endpoint(found, environment.replace("\x00", ""))
        newest = list(selectors.releases_of(endpoint)[:NEWEST])
        body = {
            "model": endpoint.model,
            "environment": endpoint.environment,
            "required": endpoint.required,
            "live": selectors.live_release(endpoint),
            "newest": newest,
            "events": selectors.history_of_releases(newest)[: 3 * NEWEST],
            "served_at": _served_at(endpoint, request.query_params.get("at", "")),
        }
        return Response(EndpointSerializer(body).data)


def _served_at(endpoint: Endpoint, asked: str) -> dict[str, Any] | None:
    if not asked:
        return None
    moment = moment_of(asked)
    served = selectors.served_at(endpoint, moment)
    return {
        "at": moment,
        "release": served.release if served else None,
        "since": served.since if served else None,
        "until": served.until if served else None,
    }


class ReleasesView(APIView):
    @extend_schema(
        operation_id="list_releases",
        summary="The releases of an endpoint, newest first",
        responses={200: ReleaseSerializer(many=True), **problems(401, 403, 404)},
        tags=["releases"],
    )
    def get(self, request: Request, model: str, environment: str) -> Response:
        found = model_for(caller(request), model, Action.MODEL_READ)
        endpoint = selectors.find_endpoint(found, environment.replace("\x00", ""))
        pages = NewestFirst()
        page = pages.paginate_queryset(selectors.releases_of(endpoint), request, view=self)
        return pages.get_paginated_response(ReleaseSerializer(page, many=True).data)

    @extend_schema(
        operation_id="make_release",
        summary="Release a version, or several with their shares",
        description="201 when it is live; 202 when it waits for another person's approval.",
        request=ReleaseWishSerializer,
        responses={
            201: ReleaseSerializer,
            202: ReleaseSerializer,
            **problems(400, 401, 403, 404, 409),
        },
        tags=["releases"],
    )
    def post(self, request: Request, model: str, environment: str) -> Response:
        who = caller(request)
        waits = releases.needs_approval(environment)
        action = Action.RELEASE_ASK if waits else Action.RELEASE_MAKE
        endpoint = _endpoint(who, model, environment, action)
        form = ReleaseWishSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        wish = form.validated_data
        release = releases.make_release(
            endpoint,
            version=wish.get("version"),
            arms=_arms(wish.get("arms", ())),
            reason=wish["reason"],
            expected_release=wish["expected_release"],
            actor=actor_of(who),
            person_id=who.user_id,
        )
        return _made(release)


def _arms(wishes: Any) -> tuple[Arm, ...]:
    return releases.arms_by_share(
        [(one["version"], ArmRole(one["role"]), one["share"], one.get("variant")) for one in wishes]
    )


def _made(release: Release) -> Response:
    live = release.state == ReleaseState.LIVE
    status = HTTPStatus.CREATED if live else HTTPStatus.ACCEPTED
    return Response(ReleaseSerializer(release).data, status=status)


class _DecideView(APIView):
    """One person's word on a release that waits."""

    decide: ClassVar[Callable[..., Release]]

    def post(self, request: Request, model: str, environment: str, number: int) -> Response:
        who = caller(request)
        endpoint = _endpoint(who, model, environment, Action.RELEASE_APPROVE)
        form = ReasonSerializer(data=request.data or {})
        form.is_valid(raise_exception=True)
        release = type(self).decide(
            selectors.find_release(endpoint, number),
            actor=actor_of(who),
            person_id=who.user_id,
            reason=form.validated_data["reason"],
        )
        return Response(ReleaseSerializer(release).data)


def _decision(operation: str, summary: str) -> Any:
    return extend_schema_view(
        post=extend_schema(
            operation_id=operation,
            summary=summary,
            request=ReasonSerializer,
            responses={200: ReleaseSerializer, **problems(400, 401, 403, 404, 409)},
            tags=["releases"],
        )
    )


@_decision("approve_release", "Let a waiting release go live; only another person may")
class ApproveView(_DecideView):
    decide = staticmethod(releases.approve)


@_decision("reject_release", "Refuse a waiting release, with a reason")
class RejectView(_DecideView):
    decide = staticmethod(releases.reject)


class RollbackView(APIView):
    @extend_schema(
        operation_id="roll_back",
        summary="Go back to an older release; never waits for approval",
        request=RollbackWishSerializer,
        responses={201: ReleaseSerializer, **problems(400, 401, 403, 404, 409)},
        tags=["releases"],
    )
    def post(self, request: Request, model: str, environment: str) -> Response:
        who = caller(request)
        endpoint = _endpoint(who, model, environment, Action.RELEASE_ROLL_BACK)
        form = RollbackWishSerializer(data=request.data or {})
        form.is_valid(raise_exception=True)
        wish = form.validated_data
        release = releases.roll_back(
            endpoint,
            to=wish["to"],
            reason=wish["reason"],
            expected_release=wish["expected_release"],
            actor=actor_of(who),
            person_id=who.user_id,
        )
        return _made(release)
