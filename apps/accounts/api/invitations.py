"""GET, POST and DELETE invitations: of a team, and of the platform."""

from http import HTTPStatus

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.api.serializers import (
    InvitationSerializer,
    InvitationWishSerializer,
    MadeInvitationSerializer,
    TeamInvitationWishSerializer,
)
from apps.accounts.callers import Caller
from apps.accounts.models import Invitation, Team
from apps.accounts.policies import Action, Thing, require, unseen
from apps.accounts.selectors import actor_of, teams_of
from apps.accounts.services import invitations
from apps.accounts.snapshot import Role
from apps.core.api.pagination import NewestFirst
from apps.core.api.schema import PAGE_PARAMETERS, page_of, problems

# What a 64-bit number has for sure; a longer one is nobody's.
MOST_NUMBER = 2**63 - 1
# One class for both lists: the document names each shape once.
INVITATION_PAGE = page_of(InvitationSerializer, "InvitationPage")


class TeamInvitationsView(APIView):
    @extend_schema(
        operation_id="list_team_invitations",
        summary="Invitations to a team that can be accepted",
        parameters=PAGE_PARAMETERS,
        responses={200: INVITATION_PAGE, **problems(401, 403, 404)},
        tags=["teams"],
    )
    def get(self, request: Request, slug: str) -> Response:
        team = _team(caller(request), slug)
        return _page(self, request, invitations.open_ones(team))

    @extend_schema(
        operation_id="invite_to_team",
        summary="Invite somebody to register and join a team; the text is shown this once",
        request=TeamInvitationWishSerializer,
        responses={201: MadeInvitationSerializer, **problems(400, 401, 403, 404, 409)},
        tags=["teams"],
    )
    def post(self, request: Request, slug: str) -> Response:
        who = caller(request)
        team = _team(who, slug)
        form = TeamInvitationWishSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        wish = form.validated_data
        made, text = invitations.invite(
            email=wish["email"], team=team, role=Role(wish["role"]), actor=actor_of(who)
        )
        return _made(made, text)


class TeamInvitationView(APIView):
    @extend_schema(
        operation_id="revoke_team_invitation",
        summary="Take an invitation to a team back",
        request=None,
        responses={204: OpenApiResponse(description="Revoked"), **problems(401, 403, 404, 409)},
        tags=["teams"],
    )
    def delete(self, request: Request, slug: str, invitation: int) -> Response:
        who = caller(request)
        team = _team(who, slug)
        return _revoked(who, Invitation.objects.filter(team=team), invitation)


class InvitationsView(APIView):
    @extend_schema(
        operation_id="list_invitations",
        summary="Invitations without a team that can be accepted",
        parameters=PAGE_PARAMETERS,
        responses={200: INVITATION_PAGE, **problems(401, 403)},
        tags=["people"],
    )
    def get(self, request: Request) -> Response:
        require(caller(request), Action.PERSON_INVITE, Thing())
        return _page(self, request, invitations.open_ones(None))

    @extend_schema(
        operation_id="invite",
        summary="Invite somebody to register; the text is shown this once",
        request=InvitationWishSerializer,
        responses={201: MadeInvitationSerializer, **problems(400, 401, 403, 409)},
        tags=["people"],
    )
    def post(self, request: Request) -> Response:
        who = caller(request)
        require(who, Action.PERSON_INVITE, Thing())
        form = InvitationWishSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        made, text = invitations.invite(
            email=form.validated_data["email"], team=None, role=None, actor=actor_of(who)
        )
        return _made(made, text)


class InvitationView(APIView):
    @extend_schema(
        operation_id="revoke_invitation",
        summary="Take an invitation without a team back",
        request=None,
        responses={204: OpenApiResponse(description="Revoked"), **problems(401, 403, 404, 409)},
        tags=["people"],
    )
    def delete(self, request: Request, invitation: int) -> Response:
        who = caller(request)
        require(who, Action.PERSON_INVITE, Thing())
        return _revoked(who, Invitation.objects.filter(team=None), invitation)


def _team(who: Caller, slug: str) -> Team:
    team = teams_of(who).filter(slug=slug).first()
    if team is None:
        raise unseen(slug)
    require(who, Action.TEAM_MANAGE, Thing(team.pk))
    return team


def _page(view: APIView, request: Request, rows: QuerySet[Invitation]) -> Response:
    pages = NewestFirst()
    page = pages.paginate_queryset(rows.select_related("team"), request, view=view)
    return pages.get_paginated_response(InvitationSerializer(page, many=True).data)


def _made(made: Invitation, text: str) -> Response:
    body = MadeInvitationSerializer(made, context={"text": text}).data
    return Response(body, status=HTTPStatus.CREATED)


def _revoked(who: Caller, rows: QuerySet[Invitation], number: int) -> Response:
    found = rows.filter(pk=number).first() if number <= MOST_NUMBER else None
    if found is None:
        raise unseen(str(number))
    invitations.revoke(found, actor=actor_of(who))
    return Response(status=HTTPStatus.NO_CONTENT)
