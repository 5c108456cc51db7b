"""The record of predictions to look at: newest first, never counted, own teams only.

The list goes from page to page by what was seen last, so that the millionth prediction is as near
as the first, and what arrives meanwhile moves nothing.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from apps.accounts.admin.door import caller_of_request, teams_here
from apps.accounts.admin.filters import ChipsFilter, TextFilter
from apps.accounts.models import ApiKey, User
from apps.accounts.policies import ENVIRONMENTS, Action, Thing, may, require
from apps.accounts.selectors import actor_of, teams_of
from apps.core import words
from apps.core.admin import PlatformAdmin, ReadOnlyAdmin
from apps.core.errors import Invalid
from apps.core.work import newest_of
from apps.inference import answers, selectors, windows
from apps.inference.engine import errors
from apps.inference.engine.buckets import OK
from apps.inference.models import Erasure, Prediction, PredictionRejected
from apps.inference.services import erasure, reads
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

    def __init__(self, request: HttpRequest, *given: Any, **named: Any) -> None:
        super().__init__(request, *given, **named)
        self.is_replaced = own_range(request.GET) != NO_RANGE

    def value(self) -> str:
        chosen = super().value()
        return chosen if chosen in self.spans else "day"

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for name, said in self.lookup_choices:
            yield {
                "selected": name == self.value() and not self.is_replaced,
                "query_string": changelist.get_query_string(
                    {self.parameter_name: str(name)}, remove=["from", "to"]
                ),
                "display": said,
            }

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Prediction]
    ) -> QuerySet[Prediction]:
        span = self.spans[self.value()][1]
        # An id carries its own time, and a time of one's own stands in the place of the chips.
        if span is None or request.GET.get("q") or own_range(request.GET) != NO_RANGE:
            return queryset
        return queryset.filter(ts__gte=timezone.now() - span)


NO_RANGE = (None, None)


def own_range(asked: Mapping[str, str]) -> tuple[datetime | None, datetime | None]:
    """Return the times of an address, ``from`` and ``to``; what is none does not narrow."""
    since, until = (_moment(asked.get(name, "")) for name in ("from", "to"))
    return since, until


def _moment(text: str) -> datetime | None:
    try:
        return windows.moment(text)
    except Invalid:
        return None


class FromFilter(TextFilter):
    """The first moment of a time of one's own; the chips of times do not narrow it further."""

    title = "from (UTC)"
    parameter_name = "from"
    kind = "datetime-local"

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Prediction]
    ) -> QuerySet[Prediction]:
        since, _ = own_range(request.GET)
        return queryset.filter(ts__gte=since) if since else queryset


class ToFilter(TextFilter):
    """The moment before which a time of one's own ends."""

    title = "to (UTC)"
    parameter_name = "to"
    kind = "datetime-local"

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Prediction]
    ) -> QuerySet[Prediction]:
        _, until = own_range(request.GET)
        return queryset.filter(ts__lt=until) if until else queryset


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

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Prediction]
    ) -> QuerySet[Prediction]:
        typed, who = self.value(), caller_of_request(request)
        if not typed:
            return queryset
        if selectors.may_search_kept(who) and not getattr(request, "unit_search_told", False):
            reads.searched_for_unit(typed, caller=who)
            request.unit_search_told = True  # type: ignore[attr-defined]  # once per request
        return selectors.of_unit(queryset, typed, caller=who)


@admin.register(Prediction)
class PredictionAdmin(ReadOnlyAdmin):
    """What was asked and answered; the newest first."""

    exported_as, export_team = "predictions.exported", "team_id"
    private_filters = frozenset({"unit"})
    change_list_template = "admin/inference/predictions.html"
    change_form_template = "admin/inference/prediction.html"
    list_display = ("at", "model_version", "environment", "outcome", "rows", "total", "asker")
    list_display_links = ("at",)
    list_filter = (
        WhenFilter, FromFilter, ToFilter, StatusFilter, EnvironmentFilter, ModelFilter,
        VersionFilter, KeyFilter, UnitFilter,
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
        if not found:
            return {}
        shown = _shown(request, found)
        return {"title": "Prediction", **shown, **_links_of(request, shown["one"])}

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


class ErasureForm(forms.ModelForm):  # type: ignore[type-arg]  # generic only for the type checker
    """Whose traces are to be removed, where, and why."""

    unit = forms.CharField(max_length=erasure.MAX_UNIT, strip=False)
    team = forms.TypedChoiceField(coerce=int, empty_value=None, required=False)
    model = forms.CharField(max_length=200, required=False)
    reason = forms.CharField(max_length=erasure.MAX_REASON, widget=forms.Textarea)

    class Meta:
        model = Erasure
        fields = ("unit", "model", "reason")


@admin.register(Erasure)
class ErasureAdmin(PlatformAdmin):
    """What was erased of units that asked for it; asking is for maintainers."""

    form = ErasureForm
    change_form_template = "admin/inference/erasure.html"
    add_form_template = "admin/inference/erasure_add.html"
    list_display = ("what", "where", "state", "removed", "who", "age")
    list_display_links = ("what",)
    ordering = ("-pk",)
    sortable_by = ()
    empty_title = "Nothing was erased yet"
    empty_step = "Erase a unit when somebody asks that what is recorded of them be removed."
    add_words = "Erase a unit"

    @admin.display(description="Unit (keyed hash)")
    def what(self, one: Erasure) -> str:
        return format_html("<code>{}</code>", one.short_digest)

    @admin.display(description="Of")
    def where(self, one: Erasure) -> str:
        return one.model or ("all teams" if one.team_id is None else "all models of the team")

    @admin.display(description="State")
    def state(self, one: Erasure) -> str:
        return words.state_pill("done" if one.finished else "running")

    @admin.display(description="Records removed")
    def removed(self, one: Erasure) -> str:
        return words.count_words(float(sum(one.counts.values())))

    @admin.display(description="Asked by")
    def who(self, one: Erasure) -> str:
        return one.actor_name

    @admin.display(description="When")
    def age(self, one: Erasure) -> str:
        return words.ago(one.before)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Erasure]:
        rows = Erasure.objects.order_by("-pk")
        who = caller_of_request(request)
        return rows if who.sees_all else rows.filter(team_id__in=_erasable(request))

    def get_form(self, request: HttpRequest, obj: Any = None, **given: Any) -> Any:
        made = super().get_form(request, obj, **given)
        is_admin = caller_of_request(request).sees_all
        teams = teams_of(caller_of_request(request)).filter(pk__in=_erasable(request))
        choices = [(str(one.pk), one.name) for one in teams]
        # A field of this request's own: the form's is shared by all who look at the same time.
        made.base_fields["team"] = forms.TypedChoiceField(
            coerce=int,
            empty_value=None,
            required=not is_admin,
            choices=[("", "All teams"), *choices] if is_admin else choices,
        )
        return made

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        asked = form.cleaned_data
        team_id = asked["team"]
        require(caller_of_request(request), Action.PRIVACY_ERASE, Thing(team_id))
        made = erasure.ask_erasure(
            asked["unit"],
            team_id=team_id,
            model=asked["model"],
            reason=asked["reason"],
            actor=actor_of(caller_of_request(request)),
        )
        obj.pk = made.pk

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None:
        """Django's own log would keep the name of what was made; our events say it."""

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:inference_erasure_change", args=[obj.pk]))

    def page_context(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        if found is None:
            return {"title": "Erase a unit"}
        hidden = erasure.unfindable(team_id=found.team_id, model=found.model)
        return {
            "one": found,
            "title": "Erasure",
            "unfindable": hidden,
            "work": newest_of("inference.erasure", found.pk),
            "total": sum(found.counts.values()),
        }

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if not isinstance(request.user, User):
            return False
        who = caller_of_request(request)
        return who.sees_all or bool(_erasable(request))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def _erasable(request: HttpRequest) -> list[int]:
    """Return the teams in whose record the one who looks may erase."""
    return teams_here(request, Action.PRIVACY_ERASE)


def _shown(request: HttpRequest, found: Prediction) -> dict[str, Any]:
    """Return a prediction as the one who looks may see it, and what may be asked for."""
    who = caller_of_request(request)
    veil = selectors.veil_of(found)
    thing = Thing(found.team_id, found.model, found.environment)
    offer = bool(veil.fields) and may(who, Action.PREDICTION_READ_REDACTED, thing)
    said: dict[str, Any] = {"redacted": veil.fields, "may_show": offer}
    if request.GET.get("redacted") != "show" or not offer:
        return {"one": veil.over(found), **said}
    try:
        kept = reads.read_redacted(found, reason=request.GET.get("reason", ""), caller=who)
    except Invalid as error:
        return {"one": veil.over(found), "refusal": error.message, **said}
    return {"one": kept, "is_kept": True, **said}


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
