"""GET and POST keys; GET, PATCH and DELETE keys/{id}; POST keys/{id}/rotate."""

from datetime import timedelta
from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.api.serializers import (
    IssuedKeySerializer,
    KeyChangeSerializer,
    KeySerializer,
    KeyWishSerializer,
    RotationSerializer,
)
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
    require_held,
    unseen,
)
from apps.accounts.selectors import actor_of, keys_of, teams_of
from apps.accounts.services import keys, plans
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
        owner = User.objects.get(pk=who.user_id)
        wish = _wish(form.validated_data, usual_plan=plans.usual_plan(who, owner))
        require_grantable(
            who,
            team_id=team.pk,
            kind=wish.kind,
            scopes=wish.scopes,
            models=wish.models,
            environments=wish.environments,
            networks=keys.checked_networks(wish.networks),
        )
        plans.require_givable(who, team_id=team.pk, name=wish.plan or "", owner=owner)
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
        operation_id="change_key",
        summary="Change what a living key may do, or until when; it holds within seconds",
        request=KeyChangeSerializer,
        responses={200: KeySerializer, **problems(400, 401, 403, 404, 409)},
        tags=["keys"],
    )
    def patch(self, request: Request, key: str) -> Response:
        who = caller(request)
        found = held_key(who, key)
        form = KeyChangeSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        change = keys.KeyChange(**form.validated_data)
        require_changeable(who, found, change)
        keys.change_key(found, change=change, actor=actor_of(who))
        return Response(KeySerializer(found).data)

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


class KeyRotationView(APIView):
    @extend_schema(
        operation_id="rotate_key",
        summary="Make a key's successor; both are good for a while, its text is shown only once",
        request=RotationSerializer,
        responses={201: IssuedKeySerializer, **problems(400, 401, 403, 404, 409)},
        tags=["keys"],
    )
    def post(self, request: Request, key: str) -> Response:
        who = caller(request)
        found = held_key(who, key)
        form = RotationSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        # The reply holds the successor's secret: who gets it must have as much.
        require_changeable(who, found, keys.KeyChange())
        overlap = timedelta(hours=form.validated_data["overlap_hours"])
        successor, text = keys.rotate_key(found, actor=actor_of(who), overlap=overlap)
        reply = IssuedKeySerializer(successor, context={"key": text})
        return Response(reply.data, status=HTTPStatus.CREATED)


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


def held_key(who: Caller, key_id: str) -> ApiKey:
    """Return a key that the caller may change: her own while she may make keys, or a managed one.

    Raises:
        NotFound: There is no such key for the caller.
        NotAllowed: She may look at it, no more.
    """
    key = ApiKey.objects.select_related("team", "owner").filter(pk=key_id).first()
    if key is None:
        raise unseen()
    own = key.owner_id == who.user_id
    require(who, Action.KEY_ISSUE if own else Action.KEY_MANAGE, Thing(key.team_id))
    require_held(who, owner_id=key.owner_id, owner_is_admin=key.owner.is_superuser)
    return key


def require_changeable(who: Caller, key: ApiKey, change: keys.KeyChange) -> None:
    """Refuse a change after which the key could do more than whoever makes the change."""
    networks = key.networks if change.networks is None else change.networks
    require_grantable(
        who,
        team_id=key.team_id,
        kind=KeyKind(key.kind),
        scopes=key.scopes if change.scopes is None else change.scopes,
        models=key.model_names if change.models is None else change.models,
        environments=key.environments if change.environments is None else change.environments,
        networks=keys.checked_networks(networks),
    )
    if who.key is not None or change.plan not in (None, key.plan_id):
        plan = str(key.plan_id if change.plan is None else change.plan)
        plans.require_givable(who, team_id=key.team_id, name=plan, owner=key.owner)


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


def _wish(form: dict[str, Any], *, usual_plan: str) -> keys.KeyWish:
    kind = KeyKind(form["kind"])
    usual = (PRODUCTION,) if kind is KeyKind.LIVE else TEST_ENVIRONMENTS
    return keys.KeyWish(
        name=form["name"],
        scopes=form["scopes"],
        kind=kind,
        models=form.get("models", ()),
        environments=form.get("environments") or usual,
        expires_at=form.get("expires_at"),
        plan=form.get("plan", usual_plan),
        networks=form.get("networks", ()),
    )
