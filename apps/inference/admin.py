"""The record of predictions to look at: newest first, never counted whole, own teams only."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import orjson
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html
from unfold.decorators import display

from apps.accounts.callers import Caller
from apps.accounts.models import User
from apps.accounts.policies import Action, Thing, may
from apps.accounts.selectors import caller_of_user
from apps.core.admin import ReadOnlyAdmin
from apps.inference import selectors
from apps.inference.engine import errors
from apps.inference.engine.buckets import OK
from apps.inference.models import Prediction, PredictionRejected

MOST_COUNTED = 10_000
CODES = tuple(
    sorted(
        kind.code
        for kind in (
            errors.DeadlinePassed,
            errors.ModelFailed,
            errors.ModelUnavailable,
            errors.Overloaded,
            errors.SignatureMismatch,
            errors.TooManyRows,
        )
    )
)


class Capped(int):
    """A count that was not carried on for ever."""

    def __str__(self) -> str:
        return f"{MOST_COUNTED:,}+" if self >= MOST_COUNTED else f"{int(self):,}"


class CappedPaginator(Paginator[Any]):
    """Counts at most so many rows, and pages over those; older ones are reached by the filters."""

    @cached_property
    def count(self) -> int:
        rows = cast("QuerySet[Any]", self.object_list)
        return Capped(rows[:MOST_COUNTED].count())


class PredictionList(ChangeList):
    def get_queryset(self, *given: Any, **named: Any) -> QuerySet[Prediction]:
        rows: QuerySet[Prediction] = super().get_queryset(*given, **named)
        return rows.defer("inputs", "outputs", "error")


class WhenFilter(admin.SimpleListFilter):
    """Every list is bounded in time, so that it reads a few partitions and not all."""

    title = "time"
    parameter_name = "when"
    spans = {
        "hour": ("Last hour", timedelta(hours=1)),
        "day": ("Last 24 hours", timedelta(days=1)),
        "week": ("Last 7 days", timedelta(days=7)),
        "month": ("Last 30 days", timedelta(days=30)),
        "all": ("All that is kept", None),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, words) for name, (words, _) in self.spans.items()]

    def value(self) -> str:
        chosen = super().value()
        return chosen if chosen in self.spans else "day"

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for name, words in self.lookup_choices:
            yield {
                "selected": name == self.value(),
                "query_string": changelist.get_query_string({self.parameter_name: str(name)}),
                "display": words,
            }

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Prediction]
    ) -> QuerySet[Prediction]:
        span = self.spans[self.value()][1]
        if span is None or request.GET.get("q"):  # an id carries its own time
            return queryset
        return queryset.filter(ts__gte=timezone.now() - span)


class StatusFilter(admin.SimpleListFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(OK, OK), (selectors.ANY_ERROR, "any error"), *((code, code) for code in CODES)]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Prediction]
    ) -> QuerySet[Prediction]:
        return selectors.with_status(queryset, self.value())


class TextFilter(admin.SimpleListFilter):
    """A field to type into: listing the values would mean reading the whole table."""

    template = "admin/inference/text_filter.html"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def has_output(self) -> bool:
        return True

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        others = [
            (name, value)
            for name, values in changelist.filter_params.items()
            for value in values
            if name != self.parameter_name
        ]
        yield {"others": others, "name": self.parameter_name, "value": self.value() or ""}

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Prediction]
    ) -> QuerySet[Prediction]:
        typed = (self.value() or "").strip()
        return queryset.filter(**self.condition(typed)) if typed else queryset

    def condition(self, typed: str) -> dict[str, Any]:
        return {str(self.parameter_name): typed.replace("\x00", "")}


class ModelFilter(TextFilter):
    title = "model"
    parameter_name = "model"


class VersionFilter(TextFilter):
    title = "version"
    parameter_name = "version"

    def condition(self, typed: str) -> dict[str, Any]:
        is_number = typed.isascii() and typed.isdecimal() and len(typed) < 10
        return {"version": int(typed) if is_number else -1}


class KeyFilter(TextFilter):
    title = "key (its 12 characters)"
    parameter_name = "key_id"


@admin.register(Prediction)
class PredictionAdmin(ReadOnlyAdmin):
    """What was asked and answered; the newest first."""

    list_display = ("at", "model", "version", "environment", "outcome", "rows", "total", "key_id")
    list_display_links = ("at",)
    list_filter = (WhenFilter, ModelFilter, VersionFilter, KeyFilter, StatusFilter)
    search_fields = ("id",)
    search_help_text = "Prediction id"
    ordering = ("-ts", "-id")
    sortable_by = ()
    paginator = CappedPaginator
    list_max_show_all = 0
    fieldsets = (
        (None, {"fields": ("id", "at", "model", "version", "environment", "outcome", "error")}),
        ("Request and answer", {"fields": ("rows", "question", "answer")}),
        ("Timing", {"fields": ("total", "queue", "inference", "from_cache")}),
        ("Why this version", {"fields": ("release", "arm", "variant", "experiment", "unit")}),
        (
            "Who asked",
            {"fields": ("key_id", "user_id", "team_id", "source", "request_id", "client_id")},
        ),
        ("Record", {"fields": ("writer", "seq")}),
    )

    @admin.display(description="Time (UTC)")
    def at(self, one: Prediction) -> str:
        return one.ts.isoformat(sep=" ", timespec="milliseconds")[:23]

    @display(description="Status", label={OK: "success"} | dict.fromkeys(CODES, "danger"))  # type: ignore[untyped-decorator]  # unfold ships no types
    def outcome(self, one: Prediction) -> str:
        return one.status

    @admin.display(description="Total")
    def total(self, one: Prediction) -> str:
        return f"{one.total_ms:.2f} ms"

    @admin.display(description="Queue")
    def queue(self, one: Prediction) -> str:
        return f"{one.queue_ms:.2f} ms"

    @admin.display(description="Inference")
    def inference(self, one: Prediction) -> str:
        return f"{one.inference_ms:.2f} ms"

    @admin.display(description="Answered from")
    def from_cache(self, one: Prediction) -> str:
        return "stored answers" if one.cached else "the model"

    @admin.display(description="Inputs")
    def question(self, one: Prediction) -> str:
        return _shown(one.inputs)

    @admin.display(description="Outputs")
    def answer(self, one: Prediction) -> str:
        return _shown(one.outputs)

    def get_changelist(self, request: HttpRequest, **given: Any) -> type[ChangeList]:
        return PredictionList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Prediction]:
        return selectors.readable_by(_caller(request))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Prediction], search_term: str
    ) -> tuple[QuerySet[Prediction], bool]:
        term = search_term.strip()
        return (selectors.by_id(queryset, term) if term else queryset), False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Prediction | None:
        return selectors.by_id(self.get_queryset(request), object_id).first()

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Prediction | None = None) -> bool:
        if not isinstance(request.user, User):
            return False
        who = _caller(request)
        if obj is None:
            return who.sees_all or bool(who.roles)
        return may(who, Action.PREDICTION_READ, Thing(obj.team_id, obj.model))


@admin.register(PredictionRejected)
class PredictionRejectedAdmin(ReadOnlyAdmin):
    """Records that the database refused, of any team; platform admins only."""

    list_display = ("sha256", "at", "error")
    fields = ("sha256", "at", "error", "record")
    ordering = ("-at",)
    sortable_by = ()
    paginator = CappedPaginator

    @admin.display(description="Record as it was spooled")
    def record(self, one: PredictionRejected) -> str:
        return format_html("<pre>{}</pre>", bytes(one.payload).decode("utf-8", "replace"))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return isinstance(request.user, User) and _caller(request).sees_all


def _caller(request: HttpRequest) -> Caller:
    """Return who is looking, found once per request."""
    found: Caller | None = getattr(request, "_caller", None)
    if found is None:
        assert isinstance(request.user, User)
        found = caller_of_user(request.user)
        request._caller = found  # type: ignore[attr-defined]  # noqa: SLF001 - kept for this request only
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "not recorded"
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return format_html('<pre class="max-h-96 overflow-auto">{}</pre>', text)
