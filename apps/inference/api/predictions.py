"""GET predictions and predictions/{id}: search the record; other teams' rows do not exist."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.api.serializers import StrictSerializer
from apps.accounts.callers import Caller
from apps.accounts.policies import Action, Thing, require
from apps.core.api.schema import problems
from apps.core.api.urls import both
from apps.inference import selectors
from apps.inference.services import reads

USUAL_SPAN = timedelta(days=1)
MAX_PAGE = 200


class SearchSerializer(StrictSerializer):
    """Which predictions are wanted."""

    model = serializers.CharField(required=False, max_length=200)
    version = serializers.IntegerField(required=False, min_value=1, max_value=2**31 - 1)
    environment = serializers.CharField(required=False, max_length=32)
    key = serializers.CharField(
        required=False, max_length=64, help_text="The 12 characters that name an API key."
    )
    status = serializers.CharField(
        required=False,
        max_length=64,
        help_text="`ok`, the code of an error, or `error` for all errors.",
    )
    unit = serializers.CharField(
        required=False,
        max_length=200,
        help_text="As it was sent. A hidden one is found only by those who may read what is kept.",
    )
    since = serializers.DateTimeField(
        required=False, help_text="Accepted at or after; 24 hours ago when not given."
    )
    until = serializers.DateTimeField(required=False, help_text="Accepted before.")
    cursor = serializers.CharField(
        required=False, max_length=100, help_text="From `next` of the page before."
    )
    page_size = serializers.IntegerField(
        required=False, min_value=1, max_value=MAX_PAGE, default=50
    )

    def validate_until(self, until: datetime) -> datetime:
        if until.year < 2000:
            raise serializers.ValidationError("Nothing was recorded before the year 2000.")
        return until


@extend_schema_field({"type": "string", "nullable": True})
class TextOrNull(serializers.Field[str, str, Any, str]):
    """A text; what was not given is stored empty and shown as null."""

    def to_representation(self, value: str) -> Any:
        return value or None


@extend_schema_field({})
class AnyJson(serializers.JSONField):
    """A value of any shape."""


class PredictionLineSerializer(serializers.Serializer[Any]):
    """One call, without what was asked and answered."""

    id = serializers.UUIDField()
    ts = serializers.DateTimeField(help_text="When the call was accepted.")
    model = serializers.CharField()
    environment = serializers.CharField()
    version = serializers.IntegerField()
    release = serializers.IntegerField(allow_null=True)
    arm = serializers.CharField()
    variant = TextOrNull()
    experiment = TextOrNull()
    unit = TextOrNull()
    key = TextOrNull(source="key_id")
    source = serializers.CharField()  # type: ignore[assignment]  # a field has its own ``source``
    status = serializers.CharField(help_text="`ok`, or the code of the error.")
    rows = serializers.IntegerField()
    cached = serializers.BooleanField()
    total_ms = serializers.FloatField()
    queue_ms = serializers.FloatField()
    inference_ms = serializers.FloatField()
    request_id = serializers.CharField()
    client_id = TextOrNull()


class PredictionSerializer(PredictionLineSerializer):
    """One call whole, as it was recorded: redacted, and large values as a digest."""

    inputs = AnyJson(allow_null=True)
    outputs = AnyJson(allow_null=True)
    error = TextOrNull()
    redacted = serializers.ListField(
        child=serializers.CharField(),
        help_text="Fields with a rule. They read `redacted`, unless what is kept was asked for.",
    )


class WholeSerializer(StrictSerializer):
    """How one prediction shall be shown."""

    redacted = serializers.ChoiceField(
        required=False,
        choices=["show"],
        help_text="`show` gives what is kept of redacted fields to those who may; it is audited.",
    )
    reason = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=2000,
        help_text="Why; needed with `redacted=show`.",
    )


class PredictionPageSerializer(serializers.Serializer[Any]):
    next = serializers.URLField(allow_null=True, help_text="The page of older ones.")
    results = PredictionLineSerializer(many=True)


class PredictionsView(APIView):
    @extend_schema(
        operation_id="search_predictions",
        summary="Recorded predictions of my teams, newest first",
        parameters=[SearchSerializer],
        responses={200: PredictionPageSerializer, **problems(400, 401, 403)},
        tags=["predictions"],
    )
    def get(self, request: Request) -> Response:
        who = _reader(request)
        form = SearchSerializer(data=request.query_params.dict())
        form.is_valid(raise_exception=True)
        asked = form.validated_data
        wanted = _wanted(asked)
        rows = selectors.predictions(wanted, caller=who)
        if unit := asked.get("unit"):
            rows = selectors.of_unit(rows, unit, caller=who)
            if selectors.may_search_kept(who):
                reads.searched_for_unit(unit, caller=who)
        page = selectors.page_of(
            rows.defer("inputs", "outputs", "error"),
            cursor=asked.get("cursor"),
            size=asked["page_size"],
        )
        body = {
            "next": _next_url(request, wanted, page),
            "results": selectors.veiled_lines(page.items),
        }
        return Response(PredictionPageSerializer(body).data)


class PredictionView(APIView):
    @extend_schema(
        operation_id="read_prediction",
        summary="One recorded prediction, with what was asked and answered",
        parameters=[WholeSerializer],
        responses={200: PredictionSerializer, **problems(400, 401, 403, 404)},
        tags=["predictions"],
    )
    def get(self, request: Request, prediction: str) -> Response:
        who = _reader(request)
        found = selectors.prediction(prediction, caller=who)
        form = WholeSerializer(data=request.query_params.dict())
        form.is_valid(raise_exception=True)
        asked = form.validated_data
        veil = selectors.veil_of(found)
        if asked.get("redacted"):
            shown = reads.read_redacted(found, reason=asked.get("reason", ""), caller=who)
        else:
            shown = veil.over(found)
        body = PredictionLineSerializer(shown).data | {
            "inputs": shown.inputs,
            "outputs": shown.outputs,
            "error": shown.error or None,
            "redacted": veil.fields,
        }
        return Response(body)


def _reader(request: Request) -> Caller:
    """Return the caller; a key needs its scope, a person sees the teams that the person is in."""
    who = caller(request)
    if who.key is not None:
        require(who, Action.PREDICTION_READ, Thing(who.key.team_id))
    return who


def _wanted(asked: dict[str, Any]) -> selectors.Wanted:
    until = asked.get("until")
    return selectors.Wanted(
        start=asked.get("since") or (until or timezone.now()) - USUAL_SPAN,
        end=until,
        model=asked.get("model"),
        version=asked.get("version"),
        environment=asked.get("environment"),
        key_id=asked.get("key"),
        status=asked.get("status"),
    )


def _next_url(request: Request, wanted: selectors.Wanted, page: selectors.Page) -> str | None:
    if page.next_cursor is None:
        return None
    # The span is fixed by the first page: "24 hours ago" must not move while somebody reads on.
    since = wanted.start.astimezone(UTC).isoformat().replace("+00:00", "Z")
    url = replace_query_param(request.build_absolute_uri(), "since", since)
    return replace_query_param(url, "cursor", page.next_cursor)


# ``predictions`` is in the assembled addresses of the app, relative to ``/api/v1/``.
PREDICTION_PATHS = [
    *both("predictions", PredictionsView.as_view(), "predictions"),
    *both("predictions/<str:prediction>", PredictionView.as_view(), "prediction"),
]
