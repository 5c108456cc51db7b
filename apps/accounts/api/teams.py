"""GET and POST teams; GET teams/{slug}; members of a team."""

from http import HTTPStatus

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.api.serializers import (
    MemberSerializer,
    MemberWishSerializer,
    RoleSerializer,
    TeamNameSerializer,
    TeamSerializer,
    TeamWishSerializer,
)
from apps.accounts.callers import Caller
from apps.accounts.models import Membership, Team, User
from apps.accounts.policies import Action, Thing, require, unseen
from apps.accounts.selectors import actor_of, members_of, teams_of
from apps.accounts.services import teams
from apps.accounts.snapshot import Role
from apps.core.api.pagination import NewestFirst
from apps.core.api.schema import PAGE_PARAMETERS, page_of, problems
from apps.core.errors import FieldProblem, Invalid


class TeamsView(APIView):
    @extend_schema(
        operation_id="list_teams",
        summary="The teams that I am in",
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(TeamSerializer, "TeamPage"), **problems(401, 403)},
        tags=["teams"],
    )
    def get(self, request: Request) -> Response:
        who = caller(request)
        if who.key is not None:
            require(who, Action.TEAM_READ, Thing(who.key.team_id))
        pages = NewestFirst()
        page = pages.paginate_queryset(teams_of(who), request, view=self)
        return pages.get_paginated_response(TeamSerializer(page, many=True).data)

    @extend_schema(
        operation_id="create_team",
        summary="Make a team",
        request=TeamWishSerializer,
        responses={201: TeamSerializer, **problems(400, 401, 403, 409)},
        tags=["teams"],
    )
    def post(self, request: Request) -> Response:
        who = caller(request)
        require(who, Action.TEAM_CREATE, Thing())
        form = TeamWishSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        team = teams.create_team(**form.validated_data, actor=actor_of(who))
        return Response(TeamSerializer(team).data, status=HTTPStatus.CREATED)


class TeamView(APIView):
    @extend_schema(
        operation_id="read_team",
        summary="One team",
        responses={200: TeamSerializer, **problems(401, 403, 404)},
        tags=["teams"],
    )
    def get(self, request: Request, slug: str) -> Response:
        return Response(TeamSerializer(_team(caller(request), slug, Action.TEAM_READ)).data)

    @extend_schema(
        operation_id="rename_team",
        summary="Call a team otherwise; its slug stays",
        request=TeamNameSerializer,
        responses={200: TeamSerializer, **problems(400, 401, 403, 404)},
        tags=["teams"],
    )
    def patch(self, request: Request, slug: str) -> Response:
        who = caller(request)
        team = _team(who, slug, Action.TEAM_MANAGE)
        form = TeamNameSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        teams.rename_team(team, name=form.validated_data["name"], actor=actor_of(who))
        return Response(TeamSerializer(team).data)


class MembersView(APIView):
    @extend_schema(
        operation_id="list_members",
        summary="Who is in a team",
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(MemberSerializer, "MemberPage"), **problems(401, 403, 404)},
        tags=["teams"],
    )
    def get(self, request: Request, slug: str) -> Response:
        team = _team(caller(request), slug, Action.TEAM_READ)
        pages = NewestFirst()
        page = pages.paginate_queryset(members_of(team), request, view=self)
        return pages.get_paginated_response(MemberSerializer(page, many=True).data)

    @extend_schema(
        operation_id="add_member",
        summary="Take a user into a team",
        request=MemberWishSerializer,
        responses={201: MemberSerializer, **problems(400, 401, 403, 404, 409)},
        tags=["teams"],
    )
    def post(self, request: Request, slug: str) -> Response:
        who = caller(request)
        team = _team(who, slug, Action.TEAM_MANAGE)
        form = MemberWishSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        wish = form.validated_data
        user = User.objects.filter(username=wish["username"]).first()
        if user is None:
            raise Invalid("Nobody was added.").at(
                [FieldProblem("/username", "There is no user of this name.")]
            )
        member = teams.add_member(team, user, role=Role(wish["role"]), actor=actor_of(who))
        return Response(MemberSerializer(member).data, status=HTTPStatus.CREATED)


class MemberView(APIView):
    @extend_schema(
        operation_id="change_role",
        summary="Give a member another role",
        request=RoleSerializer,
        responses={200: MemberSerializer, **problems(400, 401, 403, 404, 409)},
        tags=["teams"],
    )
    def patch(self, request: Request, slug: str, username: str) -> Response:
        who = caller(request)
        member = _member(_team(who, slug, Action.TEAM_MANAGE), username)
        form = RoleSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        teams.change_role(member, role=Role(form.validated_data["role"]), actor=actor_of(who))
        return Response(MemberSerializer(member).data)

    @extend_schema(
        operation_id="remove_member",
        summary="Take a member out of a team",
        request=None,
        responses={204: OpenApiResponse(description="Removed"), **problems(401, 403, 404, 409)},
        tags=["teams"],
    )
    def delete(self, request: Request, slug: str, username: str) -> Response:
        who = caller(request)
        member = _member(_team(who, slug, Action.TEAM_MANAGE), username)
        teams.remove_member(member, actor=actor_of(who))
        return Response(status=HTTPStatus.NO_CONTENT)


def _team(who: Caller, slug: str, action: Action) -> Team:
    team = teams_of(who).filter(slug=slug).first()
    if team is None:
        raise unseen(slug)
    require(who, action, Thing(team.pk))
    return team


def _member(team: Team, username: str) -> Membership:
    # PostgreSQL takes no NUL in a text; no user has one in the name either.
    wanted = username.replace("\x00", "")
    member = members_of(team).filter(user__username=wanted).first()
    if member is None:
        raise unseen(wanted)
    return member
