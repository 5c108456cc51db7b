"""POST auth/login, auth/refresh, auth/logout; GET and PATCH auth/me."""

from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api import schema  # noqa: F401 - declares how credentials are presented
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
from apps.accounts.services import people, sessions
from apps.core.api.schema import problems
from apps.core.errors import FieldProblem, Invalid


class _OpenView(APIView):
    """Credentials are in the body here; what the headers say does not matter."""

    authentication_classes = ()
    permission_classes = (Open,)


class LoginView(_OpenView):
    @extend_schema(
        operation_id="login",
        summary="Sign in",
        request=SignInSerializer,
        responses={200: TokenPairSerializer, **problems(400, 401)},
        tags=["auth"],
        auth=[],
    )
    def post(self, request: Request) -> Response:
        form = SignInSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        wish = form.validated_data
        pair = sessions.sign_in(wish["username"], wish["password"])
        return Response({"access": pair.access, "refresh": pair.refresh})


class RefreshView(_OpenView):
    @extend_schema(
        operation_id="refresh",
        summary="Exchange a refresh token for a new pair",
        request=RefreshSerializer,
        responses={200: TokenPairSerializer, **problems(400, 401)},
        tags=["auth"],
        auth=[],
    )
    def post(self, request: Request) -> Response:
        pair = sessions.refresh(_refresh_text(request))
        return Response({"access": pair.access, "refresh": pair.refresh})


class LogoutView(_OpenView):
    @extend_schema(
        operation_id="logout",
        summary="Sign out: all tokens that descend from this sign-in end",
        request=RefreshSerializer,
        responses={204: OpenApiResponse(description="Signed out"), **problems(400, 401)},
        tags=["auth"],
        auth=[],
    )
    def post(self, request: Request) -> Response:
        sessions.sign_out(_refresh_text(request))
        return Response(status=HTTPStatus.NO_CONTENT)


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
        summary="Change my names, or my password",
        request=MeChangeSerializer,
        responses={200: MeSerializer, **problems(400, 401, 403)},
        tags=["auth"],
    )
    def patch(self, request: Request) -> Response:
        who = caller(request)
        require(who, Action.SELF_WRITE, Thing())
        form = MeChangeSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        _change_me(who, form.validated_data)
        return Response(_me(who))


def _refresh_text(request: Request) -> str:
    form = RefreshSerializer(data=request.data)
    form.is_valid(raise_exception=True)
    return str(form.validated_data["refresh"])


def _change_me(who: Caller, wish: dict[str, Any]) -> None:
    user, actor = User.objects.get(pk=who.user_id), actor_of(who)
    if "password" in wish:
        if not user.check_password(wish["current_password"]):
            raise Invalid("The password was not changed.").at(
                [FieldProblem("/current_password", "This is not your password.")]
            )
        people.set_password(user, wish["password"], actor=actor)
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
