"""GET and POST plans; GET, PATCH and DELETE plans/{name}."""

from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.api.serializers import (
    PlanNumbersSerializer,
    PlanSerializer,
    PlanWishSerializer,
)
from apps.accounts.models import Plan
from apps.accounts.policies import Action, Thing, require
from apps.accounts.selectors import actor_of
from apps.accounts.services import plans
from apps.accounts.snapshot import CountedBy
from apps.core.api.pagination import NewestFirst
from apps.core.api.schema import PAGE_PARAMETERS, page_of, problems
from apps.core.errors import NotFound


class PlanPages(NewestFirst):
    ordering = "name"


class PlansView(APIView):
    @extend_schema(
        operation_id="list_plans",
        summary="What keys and people may use up, by plan",
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(PlanSerializer, "PlanPage"), **problems(401, 403)},
        tags=["plans"],
    )
    def get(self, request: Request) -> Response:
        require(caller(request), Action.PLAN_READ, Thing())
        pages = PlanPages()
        page = pages.paginate_queryset(Plan.objects.all(), request, view=self)
        return pages.get_paginated_response(PlanSerializer(page, many=True).data)

    @extend_schema(
        operation_id="make_plan",
        summary="Make a plan; for platform admins",
        request=PlanWishSerializer,
        responses={201: PlanSerializer, **problems(400, 401, 403, 409)},
        tags=["plans"],
    )
    def post(self, request: Request) -> Response:
        who = caller(request)
        require(who, Action.PLAN_WRITE, Thing())
        form = PlanWishSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        values = dict(form.validated_data)
        name = values.pop("name")
        made = plans.make_plan(name, wish=_wish(values), actor=actor_of(who))
        return Response(PlanSerializer(made).data, status=HTTPStatus.CREATED)


class PlanView(APIView):
    @extend_schema(
        operation_id="read_plan",
        summary="One plan",
        responses={200: PlanSerializer, **problems(401, 403, 404)},
        tags=["plans"],
    )
    def get(self, request: Request, name: str) -> Response:
        require(caller(request), Action.PLAN_READ, Thing())
        return Response(PlanSerializer(_plan(name)).data)

    @extend_schema(
        operation_id="change_plan",
        summary="Change a plan; all that are on it feel it within seconds; for platform admins",
        request=PlanNumbersSerializer,
        responses={200: PlanSerializer, **problems(400, 401, 403, 404)},
        tags=["plans"],
    )
    def patch(self, request: Request, name: str) -> Response:
        who = caller(request)
        require(who, Action.PLAN_WRITE, Thing())
        form = PlanNumbersSerializer(data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        changes = form.validated_data
        changed = plans.change_plan(name, changes=changes, actor=actor_of(who))
        return Response(PlanSerializer(changed).data)

    @extend_schema(
        operation_id="delete_plan",
        summary="Delete a plan that nobody is on; for platform admins",
        request=None,
        responses={204: OpenApiResponse(description="Deleted"), **problems(401, 403, 404, 409)},
        tags=["plans"],
    )
    def delete(self, request: Request, name: str) -> Response:
        who = caller(request)
        require(who, Action.PLAN_WRITE, Thing())
        plans.delete_plan(name, actor=actor_of(who))
        return Response(status=HTTPStatus.NO_CONTENT)


def _plan(name: str) -> Plan:
    plan = Plan.objects.filter(pk=name).first()
    if plan is None:
        raise NotFound(f"There is no plan `{name}` here.")
    return plan


def _wish(values: dict[str, Any]) -> plans.PlanWish:
    if "counted_by" in values:
        values["counted_by"] = CountedBy(values["counted_by"])
    return plans.PlanWish(**values)
