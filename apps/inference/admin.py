"""The record of predictions to look at: newest first, never counted, own teams only.

The list goes from page to page by what was seen last, so that the millionth prediction is as near
as the first, and what arrives meanwhile moves nothing.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from apps.accounts.admin.door import caller_of_request
from apps.accounts.admin.filters import ChipsFilter, TextFilter
from apps.accounts.models import ApiKey, User
from apps.accounts.policies import ENVIRONMENTS, Action, Thing, may
from apps.core import words
from apps.core.admin import ReadOnlyAdmin
from apps.core.errors import Invalid
from apps.inference import answers, selectors
from apps.inference.engine import errors
from apps.inference.engine.buckets import OK
from apps.inference.models import Prediction, PredictionRejected
from apps.registry.models import ModelVersion
from apps.registry.signature import signature_from_json

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
BEFORE, AFTER = "before", "after"
MAX_VERSION_DIGITS = 9


class PredictionList(ChangeList):
    """One page of the list, found by the prediction that it begins behind; nothing is counted."""

    newer = older = ""

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        # They say where a page begins: no filter, and nothing for other links to keep.
        for name in (BEFORE, AFTER):
            self.filter_params.pop(name, None)
        found: dict[str, Any] = super().get_filters_params(params)
        return {name: value for name, value in found.items() if name not in (BEFORE, AFTER)}

    def get_queryset(self, *given: Any, **named: Any) -> QuerySet[Prediction]:
        rows: QuerySet[Prediction] = super().get_queryset(*given, **named)
        return rows.defer("inputs", "outputs", "error")

    def get_results(self, request: HttpRequest) -> None:
        before, after = request.GET.get(BEFORE), request.GET.get(AFTER)
        seen = selectors.slice_of(
            self.queryset, before=before, after=after, size=self.list_per_page
        )
        self.result_list = list(seen.items)
        self.result_count = len(self.result_list)
        self.full_result_count = None
        self.show_full_result_count = False
        self.show_admin_actions = False
        self.can_show_all = self.multi_page = False
        self.paginator = Paginator(self.result_list, self.list_per_page)
        self.newer = str(self.get_query_string({AFTER: seen.newer})) if seen.newer else ""
        self.older = str(self.get_query_string({BEFORE: seen.older})) if seen.older else ""


class WhenFilter(ChipsFilter):
    """Every list is bounded in time, so that it reads a few partitions and not all."""

    title = "time"
    parameter_name = "when"
    spans = {
        "hour": ("Last hour", timedelta(hours=1)),
        "day": ("24 hours", timedelta(days=1)),
        "week": ("7 days", timedelta(days=7)),
        "month": ("30 days", timedelta(days=30)),
        "all": ("All that is kept", None),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, words) for name, (words, _) in self.spans.items()]

    def value(self) -> str:
        chosen = super().value()
        return chosen if chosen in self.spans else "day"

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for name, said in self.lookup_choices:
            yield {
                "selected": name == self.value(),
                "query_string": changelist.get_query_string({self.parameter_name: str(name)}),
                "display": said,
            }

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Prediction]
    ) -> QuerySet[Prediction]:
        span = self.spans[self.value()][1]
        if span is None or request.GET.get("q"):  # an id carries its own time
            return queryset
        return queryset.filter(ts__gte=timezone.now() - span)


class StatusFilter(ChipsFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            (OK, OK),
            (selectors.ANY_ERROR, "any error"),
            *((code, words.state_words(code)) for code in CODES),
        ]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Prediction]
    ) -> QuerySet[Prediction]:
        return selectors.with_status(queryset, self.value())


class EnvironmentFilter(ChipsFilter):
    title = "environment"
    parameter_name = "environment"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one, one) for one in reversed(ENVIRONMENTS)]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Prediction]
    ) -> QuerySet[Prediction]:
        return queryset.filter(environment=self.value()) if self.value() else queryset


class ExactFilter(TextFilter):
    """A field to type into: listing the values would mean reading the whole table."""

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Prediction]
    ) -> QuerySet[Prediction]:
        typed = self.value()
        return queryset.filter(**self.condition(typed)) if typed else queryset

    def condition(self, typed: str) -> dict[str, Any]:
        return {str(self.parameter_name): typed}


class ModelFilter(ExactFilter):
    title = "model"
    parameter_name = "model"


class VersionFilter(ExactFilter):
    title = "version"
    parameter_name = "version"

    def condition(self, typed: str) -> dict[str, Any]:
        is_number = typed.isascii() and typed.isdecimal() and len(typed) <= MAX_VERSION_DIGITS
        return {"version": int(typed) if is_number else -1}


class KeyFilter(ExactFilter):
    title = "key (12 characters)"
    parameter_name = "key_id"


class UnitFilter(ExactFilter):
    title = "unit"
    parameter_name = "unit"


@admin.register(Prediction)
class PredictionAdmin(ReadOnlyAdmin):
    """What was asked and answered; the newest first."""

    change_list_template = "admin/inference/predictions.html"
    change_form_template = "admin/inference/prediction.html"
    list_display = ("at", "model_version", "environment", "outcome", "rows", "total", "asker")
    list_display_links = ("at",)
    list_filter = (
        WhenFilter, StatusFilter, EnvironmentFilter, ModelFilter, VersionFilter, KeyFilter,
        UnitFilter,
    )  # fmt: skip
    list_filter_sheet = True
    search_fields = ("id",)
    search_help_text = "Prediction id"
    ordering = ("-ts", "-id")
    sortable_by = ()
    list_max_show_all = 0
    fields = readonly_fields = ("id",)
    empty_title = "No predictions match"
    empty_step = "Choose a longer time or fewer filters. A new record is here within seconds."

    @admin.display(description="When")
    def at(self, one: Prediction) -> str:
        return words.ago(one.ts)

    @admin.display(description="Model")
    def model_version(self, one: Prediction) -> str:
        return f"{one.model} {one.version}"

    @admin.display(description="Status")
    def outcome(self, one: Prediction) -> str:
        return words.state_pill(one.status, "good" if one.status == OK else "bad")

    @admin.display(description="Total")
    def total(self, one: Prediction) -> str:
        return words.milliseconds_words(one.total_ms)

    @admin.display(description="Key or person")
    def asker(self, one: Prediction) -> str:
        if one.key_id:
            return format_html("<code>{}</code>", one.key_id)
        return "try" if one.source == "try" else "a person's token"

    def get_changelist(self, request: HttpRequest, **given: Any) -> type[ChangeList]:
        return PredictionList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Prediction]:
        return selectors.readable_by(caller_of_request(request))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Prediction], search_term: str
    ) -> tuple[QuerySet[Prediction], bool]:
        term = search_term.strip()
        return (selectors.by_id(queryset, term) if term else queryset), False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Prediction | None:
        return selectors.by_id(self.get_queryset(request), object_id).first()

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        rate = f"{reverse('inference-pages:match-rate')}?{request.GET.urlencode()}"
        context = {**(extra_context or {}), "title": "Predictions", "rate_url": rate}
        reply: HttpResponse = super().changelist_view(request, context)
        return reply

    def page_context(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        return {"one": found, "title": "Prediction", **_links_of(request, found)} if found else {}

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Prediction | None = None) -> bool:
        if not isinstance(request.user, User):
            return False
        who = caller_of_request(request)
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

    @admin.display(description="Record as it was spooled")
    def record(self, one: PredictionRejected) -> str:
        return format_html("<pre>{}</pre>", bytes(one.payload).decode("utf-8", "replace"))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return isinstance(request.user, User) and caller_of_request(request).sees_all


def _links_of(request: HttpRequest, one: Prediction) -> dict[str, Any]:
    """What a prediction names, as far as it is still there; it outlives all of it."""
    version = ModelVersion.objects.filter(model__name=one.model, number=one.version)
    version_id, signature = version.values_list("pk", "signature").first() or (None, None)
    key = ApiKey.objects.filter(pk=one.key_id).first() if one.key_id else None
    person = User.objects.filter(pk=one.user_id).first() if one.user_id is not None else None
    columns = _columns_of(signature)
    question = None if one.inputs is None else answers.asked(one.inputs, one.rows, columns)
    return {
        "version_url": reverse("admin:registry_modelversion_change", args=[version_id])
        if version_id
        else "",
        "key": key,
        "person": person,
        "question": question,
        "question_facts": question.parts if question is not None and question.is_plain else (),
        "answer": None if one.outputs is None else answers.recorded(one.outputs, one.rows),
        "stages": answers.stages_of(
            total_ms=one.total_ms, queue_ms=one.queue_ms, inference_ms=one.inference_ms
        ),
    }


def _columns_of(signature: Any) -> tuple[str, ...]:
    """Return the names of a row's numbers; empty where rows are objects or have no names."""
    try:
        inputs = signature_from_json(signature).inputs if signature else ()
    except Invalid:  # written by another release of the platform; the numbers are still shown
        return ()
    return inputs[0].columns if len(inputs) == 1 else ()
