"""POST privacy/erasures and GET privacy/erasures/{id}: remove all that one unit left."""

from http import HTTPStatus
from typing import Any

from django.db.models import F
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.api.serializers import StrictSerializer
from apps.accounts.callers import Caller
from apps.accounts.models import Team
from apps.accounts.policies import Action, Thing, may, require, unseen
from apps.accounts.selectors import actor_of
from apps.core.api.schema import problems
from apps.core.api.urls import both
from apps.core.errors import FieldProblem, Invalid, NotAllowed
from apps.inference.models import Erasure
from apps.inference.services import erasure as erasures
from apps.registry.models import RegisteredModel

ROOT = "/api/v1/privacy/erasures"


class ErasureWishSerializer(StrictSerializer):
    """Whose traces are to be removed, and why."""

    unit = serializers.CharField(
        max_length=erasures.MAX_UNIT, trim_whitespace=False, help_text="As it was sent."
    )
    model = serializers.CharField(
        required=False, max_length=200, help_text="Only this model; without, all of the team."
    )
    team = serializers.CharField(
        required=False, max_length=64, help_text="Slug; may be left out with one team, or a model."
    )
    reason = serializers.CharField(max_length=erasures.MAX_REASON)


class ErasureSerializer(serializers.Serializer[Any]):
    """One erasure; the unit itself is not in it, nor in anything that is kept."""

    id = serializers.IntegerField()
    state = serializers.SerializerMethodField()
    unit_hash = serializers.CharField(source="short_digest")
    model = serializers.SerializerMethodField()
    before = serializers.DateTimeField(help_text="Records of before then are removed.")
    reason = serializers.CharField()
    counts = serializers.DictField(
        child=serializers.IntegerField(), help_text="Kind of record to how many were removed."
    )
    oldest = serializers.DateTimeField(allow_null=True)
    newest = serializers.DateTimeField(allow_null=True)
    finished = serializers.DateTimeField(allow_null=True)
    unfindable = serializers.SerializerMethodField(
        help_text="Models that drop or mask the unit: what they recorded cannot be found by it."
    )
    urls = serializers.SerializerMethodField()

    def get_state(self, erasure: Erasure) -> str:
        return "running" if erasure.finished is None else "done"

    def get_model(self, erasure: Erasure) -> str | None:
        return erasure.model or None

    def get_unfindable(self, erasure: Erasure) -> list[str]:
        return erasures.unfindable(team_id=erasure.team_id, model=erasure.model)

    def get_urls(self, erasure: Erasure) -> dict[str, str]:
        return {"self": f"{ROOT}/{erasure.pk}"}


class ErasuresView(APIView):
    @extend_schema(
        operation_id="erase_unit",
        summary="Remove all that one unit left in the record of a team",
        request=ErasureWishSerializer,
        responses={202: ErasureSerializer, **problems(400, 401, 403, 404)},
        tags=["privacy"],
    )
    def post(self, request: Request) -> Response:
        who = caller(request)
        form = ErasureWishSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        asked = form.validated_data
        model = asked.get("model", "")
        team_id = team_of(who, slug=asked.get("team", ""), model=model)
        erasure = erasures.ask_erasure(
            asked["unit"],
            team_id=team_id,
            model=model,
            reason=asked["reason"],
            actor=actor_of(who),
        )
        return Response(ErasureSerializer(erasure).data, status=HTTPStatus.ACCEPTED)


class ErasureView(APIView):
    @extend_schema(
        operation_id="read_erasure",
        summary="What an erasure removed so far",
        responses={200: ErasureSerializer, **problems(401, 403, 404)},
        tags=["privacy"],
    )
    def get(self, request: Request, erasure: int) -> Response:
        who = caller(request)
        found = Erasure.objects.filter(pk=erasure).first()
        # Another team's is answered with its number, as one that is not there: never its model.
        if found is None or not _sees(who, found.team_id):
            raise unseen(str(erasure))
        require(who, Action.PRIVACY_ERASE, Thing(found.team_id, found.model or None))
        return Response(ErasureSerializer(found).data)


def _sees(who: Caller, team_id: int | None) -> bool:
    return who.sees_all if team_id is None else who.sees(team_id)


def team_of(who: Caller, *, slug: str, model: str) -> int | None:
    """Return the team whose records may be erased; None for all, which only platform admins may.

    Raises:
        NotFound: There is no such team or model here.
        NotAllowed: The caller is no maintainer of it.
        Invalid: It is not clear which team is meant.
    """
    if slug:
        team_id = Team.objects.filter(slug=slug).values_list("pk", flat=True).first()
    elif model:
        of_model = RegisteredModel.objects.filter(name=model).values_list("team_id", flat=True)
        team_id = of_model.order_by(F("deleted_at").desc(nulls_first=True)).first()
    else:
        return _only_team(who)
    if team_id is None:
        raise unseen(slug or model)
    _require(who, team_id, model)
    return team_id


def _only_team(who: Caller) -> int | None:
    if who.key is None and who.sees_all:
        require(who, Action.PRIVACY_ERASE, Thing())
        return None
    teams = list(who.roles) if who.key is None else [who.key.team_id]
    mine = [one for one in teams if may(who, Action.PRIVACY_ERASE, Thing(one))]
    if len(mine) > 1:
        error = Invalid("You maintain several teams. Say which one with `team`.")
        error.at([FieldProblem("/team", "Name the team.")])
        raise error
    if not mine:
        raise NotAllowed("Only a maintainer of a team may erase what a unit left in its record.")
    _require(who, mine[0], "")
    return mine[0]


def _require(who: Caller, team_id: int, model: str) -> None:
    require(who, Action.PRIVACY_ERASE, Thing(team_id, model or None))
    if who.key is not None and who.key.models and not model:
        raise NotAllowed("This API key is bound to models. Name one of them with `model`.")


# ``privacy`` is in the assembled addresses of the app, relative to ``/api/v1/``.
PRIVACY_PATHS = [
    *both("privacy/erasures", ErasuresView.as_view(), "erasures"),
    *both("privacy/erasures/<int:erasure>", ErasureView.as_view(), "erasure"),
]
