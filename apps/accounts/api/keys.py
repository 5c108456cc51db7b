"""GET and POST keys; GET and DELETE keys/{id}."""

from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.api.serializers import IssuedKeySerializer, KeySerializer, KeyWishSerializer
from apps.accounts.callers import Caller
from apps.accounts.keys import KeyKind
from apps.accounts.models import ApiKey, Team, User
from apps.accounts.policies import (
    PRODUCTION,
    Action,
    Thing,
    may,
    require,
    require_grantable,
    unseen,
)
from apps.accounts.selectors import actor_of, keys_of, teams_of
from apps.accounts.services import keys
from apps.core.api.pagination import NewestFirst
from apps.core.api.schema import PAGE_PARAMETERS, page_of, problems
from apps.core.errors import FieldProblem, Invalid

TEST_ENVIRONMENTS = ("development", "staging")


class KeyPages(NewestFirst):
    ordering = "-created"


class KeysView(APIView):
    @extend_schema(
        operation_id="list_keys",
        summary="My keys, and those of the teams whose keys I manage",
        parameters=PAGE_PARAMETERS,
        responses={200: page_of(KeySerializer, "KeyPage"), **problems(401, 403)},
        tags=["keys"],
    )
    def get(self, request: Request) -> Response:
        who = caller(request)
        if who.key is not None:
            require(who, Action.KEY_READ, Thing(who.key.team_id))
        rows = keys_of(who, managed=_managed(who))
        pages = KeyPages()
        page = pages.paginate_queryset(rows, request, view=self)
        return pages.get_paginated_response(KeySerializer(page, many=True).data)

    @extend_schema(
        operation_id="issue_key",
        summary="Make a key; its text is shown only this once",
        request=KeyWishSerializer,
        responses={201: IssuedKeySerializer, **problems(400, 401, 403, 404)},
        tags=["keys"],
    )
    def post(self, request: Request) -> Response:
        who = caller(request)
        form = KeyWishSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        team = _team(who, form.validated_data.get("team"))
        require(who, Action.KEY_ISSUE, Thing(team.pk))
        wish = _wish(form.validated_data)
        require_grantable(
            who,
            team_id=team.pk,
            kind=wish.kind,
            scopes=wish.scopes,
            models=wish.models,
            environments=wish.environments,
        )
        owner = User.objects.get(pk=who.user_id)
        key, text = keys.issue_key(team, owner=owner, wish=wish, actor=actor_of(who))
        reply = IssuedKeySerializer(key, context={"key": text})
        return Response(reply.data, status=HTTPStatus.CREATED)


class KeyView(APIView):
    @extend_schema(
        operation_id="read_key",
        summary="One key, without its secret",
        responses={200: KeySerializer, **problems(401, 403, 404)},
        tags=["keys"],
    )
    def get(self, request: Request, key: str) -> Response:
        return Response(KeySerializer(_managed_key(caller(request), key)).data)

    @extend_schema(
        operation_id="revoke_key",
        summary="Revoke a key; it is refused everywhere within seconds",
        parameters=[OpenApiParameter("reason", str, description="Why, for the history.")],
        request=None,
        responses={204: OpenApiResponse(description="Revoked"), **problems(401, 403, 404)},
        tags=["keys"],
    )
    def delete(self, request: Request, key: str) -> Response:
        who = caller(request)
        reason = request.query_params.get("reason", "").replace("\x00", "")[:500]
        keys.revoke_key(_managed_key(who, key), actor=actor_of(who), reason=reason)
        return Response(status=HTTPStatus.NO_CONTENT)


def _managed(who: Caller) -> list[int]:
    """Return the teams whose keys a caller manages."""
    teams = teams_of(who).values_list("pk", flat=True)
    return [team for team in teams if may(who, Action.KEY_MANAGE, Thing(team))]


def _managed_key(who: Caller, key_id: str) -> ApiKey:
    """Return a key that is the caller's own or in a team whose keys the caller manages."""
    key = ApiKey.objects.select_related("team", "owner").filter(pk=key_id).first()
    if key is None:
        raise unseen()
    own = key.owner_id == who.user_id
    require(who, Action.KEY_READ if own else Action.KEY_MANAGE, Thing(key.team_id))
    return key


def _team(who: Caller, slug: str | None) -> Team:
    teams = teams_of(who)
    if slug is not None:
        team = teams.filter(slug=slug).first()
        if team is None:
            raise unseen(slug)
        return team
    mine = list(teams[:2])
    if len(mine) != 1:
        raise Invalid("The key cannot be made like this.").at(
            [FieldProblem("/team", "Name the team (its slug): you are not in exactly one.")]
        )
    return mine[0]


def _wish(form: dict[str, Any]) -> keys.KeyWish:
    kind = KeyKind(form["kind"])
    usual = (PRODUCTION,) if kind is KeyKind.LIVE else TEST_ENVIRONMENTS
    return keys.KeyWish(
        name=form["name"],
        scopes=form["scopes"],
        kind=kind,
        models=form.get("models", ()),
        environments=form.get("environments") or usual,
        expires_at=form.get("expires_at"),
    )
