"""GET people; GET and PATCH people/{username}: what platform admins see and change of people."""

from typing import Any

from django.db.models import Prefetch, Q, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.api.serializers import MyTeamSerializer, StrictSerializer
from apps.accounts.callers import Caller
from apps.accounts.models import Membership, User
from apps.accounts.policies import GRANTABLE, Action, Thing, require, unseen
from apps.accounts.selectors import actor_of
from apps.accounts.services.standing import StandingWish, change_standing
from apps.core.api.pagination import NewestFirst
from apps.core.api.schema import PAGE_PARAMETERS, page_of, problems

MOST_REASON = 2000


class PersonSerializer(serializers.Serializer[User]):
    """Somebody who may sign in; never a password, token or digest of one."""

    username = serializers.CharField()
    email = serializers.CharField()
    first_name = serializers.CharField()
    last_name = serializers.CharField()
    is_active = serializers.BooleanField(help_text="May sign in.")
    is_admin = serializers.BooleanField(source="is_superuser", help_text="Runs the platform.")
    plan = serializers.CharField(source="plan_id")
    permissions = serializers.SerializerMethodField(help_text="Granted besides the roles.")
    teams = serializers.SerializerMethodField()
    created = serializers.DateTimeField(source="date_joined")
    last_sign_in = serializers.DateTimeField(source="last_login", allow_null=True)

    def get_permissions(self, user: User) -> list[str]:
        rows = user.user_permissions.all()
        return sorted(f"{one.content_type.app_label}.{one.codename}" for one in rows)

    @extend_schema_field(MyTeamSerializer(many=True))
    def get_teams(self, user: User) -> list[dict[str, str]]:
        return [
            {"slug": one.team.slug, "name": one.team.name, "role": one.role}
            for one in user.memberships.all()
        ]


class StandingSerializer(StrictSerializer):
    """What is not named stays as it is."""

    is_active = serializers.BooleanField(
        required=False, help_text="Off: sign-in, tokens and keys are refused within seconds."
    )
    is_admin = serializers.BooleanField(
        required=False, help_text="May do everything in every team. The last one stays."
    )
    plan = serializers.CharField(required=False, max_length=32)
    permissions = serializers.ListField(
        child=serializers.CharField(max_length=100),
        required=False,
        max_length=20,
        help_text=f"All that shall be granted besides the roles; some of: {', '.join(GRANTABLE)}.",
    )
    reason = serializers.CharField(max_length=MOST_REASON, help_text="Kept in the history.")


class PeopleView(APIView):
    @extend_schema(
        operation_id="list_people",
        summary="Everybody who may sign in, or might once; for platform admins",
        parameters=[
            *PAGE_PARAMETERS,
            OpenApiParameter("search", str, description="Part of a name or email address."),
        ],
        responses={200: page_of(PersonSerializer, "PersonPage"), **problems(400, 401, 403)},
        tags=["people"],
    )
    def get(self, request: Request) -> Response:
        require(caller(request), Action.PEOPLE_READ, Thing())
        rows = _people()
        if term := request.query_params.get("search", "").replace("\x00", "").strip():
            rows = rows.filter(
                Q(username__icontains=term)
                | Q(email__icontains=term)
                | Q(first_name__icontains=term)
                | Q(last_name__icontains=term)
            )
        pages = NewestFirst()
        page = pages.paginate_queryset(rows, request, view=self) or []
        return pages.get_paginated_response([_said(one) for one in page])


class PersonView(APIView):
    @extend_schema(
        operation_id="read_person",
        summary="One person, with roles and plan; for platform admins",
        responses={200: PersonSerializer, **problems(401, 403, 404)},
        tags=["people"],
    )
    def get(self, request: Request, username: str) -> Response:
        return Response(_said(_person(caller(request), username, Action.PEOPLE_READ)))

    @extend_schema(
        operation_id="change_person",
        summary="Disable or enable a person, make or unmake an admin, give a plan or permissions",
        request=StandingSerializer,
        responses={200: PersonSerializer, **problems(400, 401, 403, 404, 409)},
        tags=["people"],
    )
    def patch(self, request: Request, username: str) -> Response:
        who = caller(request)
        user = _person(who, username, Action.PEOPLE_MANAGE)
        form = StandingSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        wish = dict(form.validated_data)
        reason = wish.pop("reason")
        if "permissions" in wish:
            wish["permissions"] = tuple(wish["permissions"])
        change_standing(user, StandingWish(**wish), actor=actor_of(who), reason=reason)
        return Response(_said(_people().get(pk=user.pk)))


def _people() -> QuerySet[User]:
    memberships = Membership.objects.select_related("team").order_by("team__name")
    return User.objects.prefetch_related(
        Prefetch("memberships", queryset=memberships), "user_permissions__content_type"
    )


def _person(who: Caller, username: str, action: Action) -> User:
    require(who, action, Thing())
    # PostgreSQL takes no NUL in a text; no user has one in the name either.
    wanted = username.replace("\x00", "")
    user = _people().filter(username=wanted).first()
    if user is None:
        raise unseen(wanted)
    return user


def _said(user: User) -> Any:
    return PersonSerializer(user).data
