"""GET and POST models; GET, PATCH and DELETE models/{model}."""

from http import HTTPStatus

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.policies import Action, Thing, require
from apps.accounts.selectors import actor_of
from apps.core.api.pagination import NewestFirst
from apps.core.api.schema import problems
from apps.registry.api.reach import model_for, models_seen_by, team_for
from apps.registry.api.serializers import (
    ModelChangeSerializer,
    ModelSerializer,
    ModelWishSerializer,
)
from apps.registry.services import models
from apps.registry.services.models import ModelChange


class ModelsView(APIView):
    @extend_schema(
        operation_id="list_models",
        summary="The models of my teams",
        parameters=[
            OpenApiParameter("team", str, description="Only of this team (slug)."),
            OpenApiParameter("search", str, description="Only names with this in them."),
        ],
        responses={200: ModelSerializer(many=True), **problems(401, 403)},
        tags=["models"],
    )
    def get(self, request: Request) -> Response:
        who = caller(request)
        if who.key is not None:
            require(who, Action.MODEL_READ, Thing(who.key.team_id))
        found = models_seen_by(who)
        if team := request.query_params.get("team", "").replace("\x00", ""):
            found = found.filter(team__slug=team)
        if search := request.query_params.get("search", "").replace("\x00", ""):
            found = found.filter(name__contains=search)
        pages = NewestFirst()
        page = pages.paginate_queryset(found, request, view=self)
        body = ModelSerializer(page, many=True, context={"request": request}).data
        return pages.get_paginated_response(body)

    @extend_schema(
        operation_id="create_model",
        summary="Make a model without a version yet",
        request=ModelWishSerializer,
        responses={201: ModelSerializer, **problems(400, 401, 403, 404, 409)},
        tags=["models"],
    )
    def post(self, request: Request) -> Response:
        who = caller(request)
        form = ModelWishSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        wish = form.validated_data
        team = team_for(who, wish.get("team", ""))
        require(who, Action.MODEL_WRITE, Thing(team.pk, wish["name"]))
        model = models.create_model(
            wish["name"],
            team=team,
            actor=actor_of(who),
            description=wish.get("description", ""),
            tags=wish.get("tags", ()),
        )
        body = ModelSerializer(model, context={"request": request}).data
        return Response(body, status=HTTPStatus.CREATED)


class ModelView(APIView):
    @extend_schema(
        operation_id="read_model",
        summary="One model",
        responses={200: ModelSerializer, **problems(401, 403, 404)},
        tags=["models"],
    )
    def get(self, request: Request, model: str) -> Response:
        found = model_for(caller(request), model, Action.MODEL_READ)
        return Response(ModelSerializer(found, context={"request": request}).data)

    @extend_schema(
        operation_id="change_model",
        summary="Change a model's card or its rules for caching and recording",
        request=ModelChangeSerializer,
        responses={200: ModelSerializer, **problems(400, 401, 403, 404)},
        tags=["models"],
    )
    def patch(self, request: Request, model: str) -> Response:
        who = caller(request)
        found = model_for(who, model, Action.MODEL_WRITE)
        form = ModelChangeSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        changed = models.change_model(
            found, ModelChange(**form.validated_data), actor=actor_of(who)
        )
        return Response(ModelSerializer(changed, context={"request": request}).data)

    @extend_schema(
        operation_id="delete_model",
        summary="Take a model out of service; its history stays",
        request=None,
        responses={204: OpenApiResponse(description="Deleted"), **problems(401, 403, 404)},
        tags=["models"],
    )
    def delete(self, request: Request, model: str) -> Response:
        who = caller(request)
        # Deleting ends what serves in production, so it needs what a release there needs.
        found = model_for(who, model, Action.MODEL_WRITE)
        model_for(who, model, Action.RELEASE_ROLL_BACK, "production")
        models.delete_model(found, actor=actor_of(who))
        return Response(status=HTTPStatus.NO_CONTENT)
