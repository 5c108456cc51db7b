"""POST auth/login, auth/refresh, auth/logout; GET and PATCH auth/me."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django.db import transaction
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api import (
    cookies,
    schema,  # noqa: F401 - declares how credentials are presented
)
from apps.accounts.api.authentication import caller
from apps.accounts.api.permissions import Open
from apps.accounts.api.serializers import (
    MeChangeSerializer,
    MeSerializer,
    RefreshSerializer,
    SignInSerializer,
    TokenPairSerializer,
)
from apps.accounts.callers import Caller
from apps.accounts.models import User
from apps.accounts.policies import Action, Thing, require
from apps.accounts.selectors import actor_of, teams_of
from apps.accounts.services import guards, people, sessions, throttles
from apps.core.api.schema import problems
from apps.core.errors import FieldProblem, Invalid, WrongPassword
from apps.core.events import Actor


class _OpenView(APIView):
    """Credentials are in the body here; what the headers say does not matter."""

    authentication_classes = ()
    permission_classes = (Open,)


class LoginView(_OpenView):
    @extend_schema(
        operation_id="login",
        summary="Sign in",
        request=SignInSerializer,
        responses={200: TokenPairSerializer, **problems(400, 401, 429)},
        tags=["auth"],
        auth=[],
    )
    def post(self, request: Request) -> Response:
        throttles.throttle_sign_in()
        form = SignInSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        wish = form.validated_data
        pair = sessions.sign_in(wish["username"], wish["password"], wish.get("code"))
        return cookies.answer(request, pair, as_cookie=wish["cookie"])


class RefreshView(_OpenView):
    @extend_schema(
        operation_id="refresh",
        summary="Exchange a refresh token for a new pair",
        request=RefreshSerializer,
        responses={200: TokenPairSerializer, **problems(400, 401, 403)},
        tags=["auth"],
        auth=[],
    )
    def post(self, request: Request) -> Response:
        held = _refresh_token(request)
        return cookies.answer(request, sessions.refresh(held.text), as_cookie=held.is_cookie)


class LogoutView(_OpenView):
    @extend_schema(
        operation_id="logout",
        summary="Sign out: all tokens that descend from this sign-in end",
        request=RefreshSerializer,
        responses={204: OpenApiResponse(description="Signed out"), **problems(400, 401, 403)},
        tags=["auth"],
        auth=[],
    )
    def post(self, request: Request) -> Response:
        held = _refresh_token(request)
        sessions.sign_out(held.text)
        reply = Response(status=HTTPStatus.NO_CONTENT)
        if held.is_cookie:
            cookies.forget(reply)
        return reply


class MeView(APIView):
    @extend_schema(
        operation_id="read_me",
        summary="Who am I",
        responses={200: MeSerializer, **problems(401, 403)},
        tags=["auth"],
    )
    def get(self, request: Request) -> Response:
        who = caller(request)
        require(who, Action.SELF_READ, Thing())
        return Response(_me(who))

    @extend_schema(
        operation_id="change_me",
        summary="Change my names, email address, or password",
        request=MeChangeSerializer,
        responses={200: MeSerializer, **problems(400, 401, 403, 409, 429)},
        tags=["auth"],
    )
    def patch(self, request: Request) -> Response:
        who = caller(request)
        require(who, Action.SELF_WRITE, Thing())
        form = MeChangeSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        _change_me(who, form.validated_data)
        return Response(_me(who))


@dataclass(frozen=True, slots=True)
class _Held:
    """A refresh token, and whether a browser holds it as a cookie."""

    text: str
    is_cookie: bool


def _refresh_token(request: Request) -> _Held:
    """Return the body's token, else the cookie's."""
    form = RefreshSerializer(data=request.data)
    form.is_valid(raise_exception=True)
    if "refresh" in form.validated_data:
        return _Held(str(form.validated_data["refresh"]), is_cookie=False)
    text = cookies.presented(request)
    if text is None:
        problem = FieldProblem("/refresh", "Send the refresh token; no cookie holds one.")
        raise Invalid("There is nothing to go on with.").at([problem])
    return _Held(text, is_cookie=True)


def _change_me(who: Caller, wish: dict[str, Any]) -> None:
    user, actor = User.objects.get(pk=who.user_id), actor_of(who)
    if "password" in wish or "email" in wish:
        _require_password(user, wish["current_password"])
    with transaction.atomic():
        _change(user, wish, actor)


def _require_password(user: User, password: str) -> None:
    """Ask for the password again; whoever has only the token guesses no more often than others."""
    try:
        guards.person_with(user.username, password)
    except WrongPassword as error:
        problem = FieldProblem("/current_password", "This is not your password.")
        raise Invalid("Nothing was changed.").at([problem]) from error


def _change(user: User, wish: dict[str, Any], actor: Actor) -> None:
    if "password" in wish:
        people.set_password(user, wish["password"], actor=actor)
    if "email" in wish:
        people.change_email(user, email=wish["email"], actor=actor)
    if "first_name" in wish or "last_name" in wish:
        people.change_names(
            user,
            first_name=wish.get("first_name", user.first_name),
            last_name=wish.get("last_name", user.last_name),
            actor=actor,
        )


def _me(who: Caller) -> dict[str, Any]:
    user = User.objects.get(pk=who.user_id)
    names = teams_of(who).filter(pk__in=who.roles).order_by("slug")
    key = who.key
    return {
        "username": user.username,
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "is_admin": who.is_admin,
        "permissions": sorted(who.permissions),
        "plan": str(user.plan_id),
        "teams": [
            {"slug": team.slug, "name": team.name, "role": who.roles[team.pk]} for team in names
        ],
        "key": key
        and {
            "id": key.id,
            "scopes": key.scopes,
            "models": key.models,
            "environments": key.environments,
        },
    }
