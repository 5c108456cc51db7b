"""GET analytics: requests, errors, latency and rows over any time, as the pages show them."""

from collections.abc import Mapping
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.api.serializers import StrictSerializer
from apps.accounts.callers import Caller
from apps.accounts.models import Team
from apps.accounts.policies import ENVIRONMENTS, Action, Thing, require, unseen
from apps.core.api.schema import problems
from apps.core.api.urls import both
from apps.inference import traffic, windows
from apps.inference.selectors import Traffic
from apps.inference.traffic import ModelSeen, Scope, Seen
from apps.inference.windows import HOUR, MINUTE, RANGES, Window


class AskedSerializer(StrictSerializer):
    """Whose traffic, and when."""

    range = serializers.ChoiceField(
        choices=list(RANGES), required=False, help_text="A time up to now; `day` when not given."
    )
    to = serializers.CharField(required=False, max_length=40, help_text="Before; now if not given.")
    model = serializers.CharField(required=False, max_length=200)
    version = serializers.IntegerField(required=False, min_value=1, max_value=2**31 - 1)
    environment = serializers.ChoiceField(choices=list(ENVIRONMENTS), required=False)
    key = serializers.CharField(
        required=False, max_length=64, help_text="The 12 characters that name an API key."
    )
    team = serializers.CharField(required=False, max_length=100, help_text="A team's slug.")

    def get_fields(self) -> dict[str, Any]:
        """Add ``from``, which Python reserves."""
        since = serializers.CharField(
            required=False, max_length=40, help_text="At or after; instead of `range`."
        )
        return {**super().get_fields(), "from": since}


class NumbersSerializer(serializers.Serializer[Any]):
    """Counts; latency is null where nothing was asked."""

    requests = serializers.IntegerField(source="count")
    rows = serializers.IntegerField()
    errors = serializers.IntegerField()  # type: ignore[assignment]  # a serializer has its own
    cache_hits = serializers.IntegerField()
    mean_ms = serializers.FloatField(allow_null=True)
    p50_ms = serializers.FloatField(allow_null=True)
    p95_ms = serializers.FloatField(allow_null=True)
    p99_ms = serializers.FloatField(allow_null=True)


class StepSerializer(NumbersSerializer):
    """One step of the time; ``at`` is its beginning."""

    at = serializers.DateTimeField()


class VersionTrafficSerializer(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    requests = serializers.ListField(child=serializers.IntegerField(), help_text="By step.")


class CodeSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    errors = serializers.ListField(  # type: ignore[assignment]  # a serializer has its own
        child=serializers.IntegerField(), help_text="By step."
    )


class ModelTrafficSerializer(NumbersSerializer):
    model = serializers.CharField()


class AnalyticsSerializer(serializers.Serializer[Any]):
    """Traffic of a time, step by step, and of the time of the same length before."""

    start = serializers.DateTimeField(help_text="The time begins on a whole step.")
    end = serializers.DateTimeField(help_text="Its last step may still be filling.")
    step_seconds = serializers.IntegerField()
    total = NumbersSerializer()
    before = NumbersSerializer()
    steps = StepSerializer(many=True)
    versions = VersionTrafficSerializer(many=True, help_text="Where one model is asked about.")
    codes = CodeSerializer(many=True)
    models = ModelTrafficSerializer(
        many=True, help_text="The models with most requests, where none is asked about."
    )


class AnalyticsView(APIView):
    @extend_schema(
        operation_id="read_analytics",
        summary="Traffic, errors, latency and rows of my teams over any time",
        description="Read from counts kept beforehand; tries are not counted. A percentile is off "
        "by less than 9.1 %. Usage of a key is counted by the hour.",
        parameters=[AskedSerializer],
        responses={200: AnalyticsSerializer, **problems(400, 401, 403, 404)},
        tags=["predictions"],
    )
    def get(self, request: Request) -> Response:
        who = caller(request)
        if who.key is not None:
            require(who, Action.PREDICTION_READ, Thing(who.key.team_id))
        form = AskedSerializer(data=request.query_params.dict())
        form.is_valid(raise_exception=True)
        scope, window = scope_and_window(who, form.validated_data)
        return Response(AnalyticsSerializer(body_of(scope, window)).data)


def scope_and_window(who: Caller, asked: Mapping[str, Any]) -> tuple[Scope, Window]:
    """Return what an address asks about, as far as the caller may see it.

    Raises:
        PlatformError: Why not.
    """
    key_id = asked.get("key") or None
    window = windows.asked(asked, now=timezone.now(), least_step=HOUR if key_id else MINUTE)
    scope = traffic.scope_of(
        who,
        model=asked.get("model") or None,
        version=asked.get("version") or None,
        environment=asked.get("environment") or None,
        key_id=key_id,
        team_id=_team_id(asked.get("team") or None),
    )
    return scope, window


def body_of(scope: Scope, window: Window) -> dict[str, Any]:
    """Return the numbers as plain values; the download of the page is the same."""
    seen = traffic.look(scope, window)
    models: tuple[ModelSeen, ...] = ()
    if scope.model is None and scope.key_id is None:
        models, _ = traffic.by_model(scope, window)
    return {
        "start": window.start,
        "end": window.end,
        "step_seconds": window.step_seconds,
        "total": seen.total,
        "before": traffic.look(scope, window.before).total,
        "steps": [_numbers(one) | {"at": at} for at, one in _by_time(seen)],
        "versions": [
            {"version": number, "requests": counts} for number, counts in seen.versions.items()
        ],
        "codes": [{"code": code, "errors": counts} for code, counts in seen.codes.items()],
        "models": [_numbers(one.total) | {"model": one.model} for one in models],
    }


def _by_time(seen: Seen) -> list[tuple[Any, Traffic]]:
    return list(zip(seen.window.times, seen.steps, strict=True))


def _numbers(one: Traffic) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Traffic.__slots__}


def _team_id(slug: str | None) -> int | None:
    if slug is None:
        return None
    found = Team.objects.filter(slug=slug).values_list("pk", flat=True).first()
    if found is None:
        raise unseen(slug)
    return found


# Relative to ``/api/v1/``.
ANALYTICS_PATHS = both("analytics", AnalyticsView.as_view(), "analytics")
