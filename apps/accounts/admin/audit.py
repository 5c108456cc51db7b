"""The audit record: who did what to which thing, when and why, and whether the chain holds.

It stands here and not in core, because whose events one may read is a matter of teams.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import MAXYEAR, UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from apps.accounts.admin.door import caller_of_request
from apps.accounts.admin.filters import ChipsFilter, SinceFilter, TeamFilter, TextFilter
from apps.accounts.api.audit import audited_teams, events_for, found_in
from apps.accounts.models import Team
from apps.accounts.selectors import actor_of
from apps.core import events, sentences, sheets, words, work
from apps.core.admin import ReadOnlyAdmin
from apps.core.chain import CHAIN_ID
from apps.core.models import Event, EventSeal
from apps.core.selectors import chain_status

# Rows of one export; more of them are had by narrower filters.
MOST_EXPORTED = 10_000
COLUMNS = (
    "Time (UTC)", "Who", "Kind of actor", "Address", "Verb", "What", "Kind of thing", "Thing",
    "Reason", "Facts", "Request id", "Seal",
)  # fmt: skip


def may_read_audit(request: HttpRequest) -> bool:
    """Whether the menu shows the entry."""
    if not (request.user.is_active and request.user.is_staff):
        return False
    caller = caller_of_request(request)
    return caller.sees_all or bool(audited_teams(caller))


class AboutFilter(ChipsFilter):
    title = "about"
    parameter_name = "about"
    everything = "Everything"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(sentences.GROUPS.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        chosen = self.value()
        verbs = [one for one in sentences.SAYINGS if sentences.group_of(one) == chosen]
        return queryset.filter(verb__in=verbs) if chosen else queryset


class SignInFilter(ChipsFilter):
    """Sign-ins are many and seldom looked for."""

    title = "sign-ins"
    parameter_name = "signins"
    everything = "Hidden"
    quiet = ("user.signed_in", "user.refreshed", "user.signed_out")

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("shown", "Shown")] if caller_of_request(request).sees_all else []

    def has_output(self) -> bool:
        return bool(self.lookup_choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        return queryset if self.value() == "shown" else queryset.exclude(verb__in=self.quiet)


class WordFilter(TextFilter):
    """Narrows by what one column holds."""

    lookup: ClassVar[str]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        typed = self.value()
        return queryset.filter(**{self.lookup: typed}) if typed else queryset


class ActorFilter(WordFilter):
    title, parameter_name, lookup = "who", "who", "actor_name__istartswith"


class VerbFilter(WordFilter):
    title, parameter_name, lookup = "verb", "verb", "verb"


class AddressFilter(WordFilter):
    title, parameter_name, lookup = "address", "address", "address"


class RequestFilter(WordFilter):
    title, parameter_name, lookup = "request id", "request", "request_id"


class FromFilter(TextFilter):
    title = "from"
    parameter_name = "from"
    kind = "date"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        day = _day(self.value())
        return queryset.filter(at__gte=day) if day else queryset


class UntilFilter(TextFilter):
    title = "until"
    parameter_name = "until"
    kind = "date"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        day = _day(self.value())
        return queryset.filter(at__lt=day + timedelta(days=1)) if day else queryset


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    """The audit record."""

    exported_as, export_team = "audit.exported", "team_id"

    change_list_template = "admin/accounts/event/list.html"
    change_form_template = "admin/accounts/event/page.html"
    list_display = ("when", "who", "what", "thing", "why")
    list_display_links = ("what",)
    list_filter = (
        AboutFilter, SinceFilter, TeamFilter, SignInFilter, ActorFilter, VerbFilter, AddressFilter,
        RequestFilter, FromFilter, UntilFilter,
    )  # fmt: skip
    list_filter_sheet = True
    search_fields = ("target_name", "actor_name", "request_id")
    search_help_text = "Thing, person, reason, address or request id"
    ordering = ("-id",)
    sortable_by = ()
    list_max_show_all = 0
    empty_title = "No events yet"
    empty_step = "Every change of a model, release, key, team or person is written here."

    @admin.display(description="When")
    def when(self, event: Event) -> str:
        return words.ago(event.at)

    @admin.display(description="Who")
    def who(self, event: Event) -> str:
        return format_html('<span class="mp-nowrap">{}</span>', event.actor_name)

    @admin.display(description="What")
    def what(self, event: Event) -> str:
        return sentences.headline(event)

    @admin.display(description="Thing")
    def thing(self, event: Event) -> str:
        place = sentences.place_of(event)
        if not place:
            return event.target_name
        return format_html('<a class="mp-link" href="{}">{}</a>', place, event.target_name)

    @admin.display(description="Reason")
    def why(self, event: Event) -> str:
        return event.reason or words.DASH

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        return events_for(caller_of_request(request)).order_by(*self.ordering)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        """Look for the words in names and reasons; ids and addresses are known whole."""
        term = search_term.strip().replace("\x00", "")
        return (found_in(queryset, term) if term else queryset), False

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may_read_audit(request)

    def has_view_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        if obj is None or not may_read_audit(request):
            return may_read_audit(request)
        caller = caller_of_request(request)
        return caller.sees_all or obj.team_id in audited_teams(caller)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("chain/", view(self.chain), name="core_event_chain"),
            path("verify/", view(require_POST(self.verify)), name="core_event_verify"),
            path("export/", view(self.export), name="core_event_export"),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not may_read_audit(request):
            raise PermissionDenied
        context = {
            **(extra_context or {}),
            "title": "Audit",
            "chain": chain_status(),
            "may_verify": caller_of_request(request).sees_all,
            "export_url": f"{reverse('admin:core_event_export')}?{request.GET.urlencode()}",
            "most_exported": MOST_EXPORTED,
        }
        reply: HttpResponse = super().changelist_view(request, context)
        return reply

    def page_context(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        return _page(found) if found else {}

    def chain(self, request: HttpRequest) -> HttpResponse:
        """Draw the state of the chain; the page asks again while a verification runs."""
        if not may_read_audit(request):
            raise Http404
        context = {"chain": chain_status(), "may_verify": caller_of_request(request).sees_all}
        return TemplateResponse(request, "admin/accounts/event/chain.html", context)

    @transaction.atomic
    def verify(self, request: HttpRequest) -> HttpResponse:
        """Let a worker walk the whole chain; a request must not."""
        caller = caller_of_request(request)
        if not caller.sees_all:
            raise Http404
        if not chain_status().is_running:
            actor = actor_of(caller)
            work.enqueue(
                "core.verify_audit",
                subject=EventSeal(seq=CHAIN_ID),
                actor_kind=actor.kind,
                actor_id=actor.id,
                actor_name=actor.name,
            )
        return HttpResponseRedirect(reverse("admin:core_event_changelist"))

    def export(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        """Send the rows that the list shows, by the same address line."""
        if not may_read_audit(request):
            raise Http404
        try:
            rows = self.get_changelist_instance(request).get_queryset(request)
        except IncorrectLookupParameters:  # the list says what is wrong with the address
            return HttpResponseRedirect(_list_address(request))
        found = list(rows.select_related("seal")[: MOST_EXPORTED + 1])
        if len(found) > MOST_EXPORTED:
            self.message_user(
                request,
                f"More than {MOST_EXPORTED:,} events match. Narrow the filters, for example by "
                "time, and export again.",
                messages.WARNING,
            )
            return HttpResponseRedirect(_list_address(request))
        _record_export(request, found)
        name = f"audit-{timezone.now():%Y-%m-%dT%H%M}.csv"
        return StreamingHttpResponse(
            sheets.csv_lines(COLUMNS, map(_cells, found)),
            status=HTTPStatus.OK,
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


def _list_address(request: HttpRequest) -> str:
    return f"{reverse('admin:core_event_changelist')}?{request.GET.urlencode()}"


@transaction.atomic
def _record_export(request: HttpRequest, found: Sequence[Event]) -> None:
    """Write one event for each team whose rows leave, so that each can read of its own."""
    actor = actor_of(caller_of_request(request))
    head = EventSeal.objects.order_by("-seq").first() or EventSeal(seq=0)
    asked = request.GET.urlencode()
    counts = Counter(one.team_id for one in found) or {None: 0}
    for team_id, rows in counts.items():
        events.record(
            "audit.exported", actor=actor, target=head, team_id=team_id, rows=rows, filters=asked
        )


def _cells(event: Event) -> tuple[object, ...]:
    return (
        event.at.isoformat(sep=" ", timespec="seconds")[:19],
        event.actor_name,
        event.actor_kind,
        event.address,
        event.verb,
        sentences.headline(event),
        event.target_kind,
        event.target_name,
        event.reason,
        "; ".join(_change(*one) for one in sentences.changes(event.facts)),
        event.request_id,
        event.seal.seq if hasattr(event, "seal") else "",
    )


def _change(name: str, before: str, after: str) -> str:
    return f"{name}: {before} → {after}" if before else f"{name}: {after}"


def _page(event: Event) -> dict[str, Any]:
    seal = EventSeal.objects.filter(event=event).first()
    team = Team.objects.filter(pk=event.team_id).first() if event.team_id else None
    changes = sentences.changes(event.facts)
    return {
        "event": event,
        "seal": seal,
        "team": team,
        "place": sentences.place_of(event),
        "said": sentences.sentence(event),
        "has_before": any(before for _, before, _ in changes),
        "changes": changes,
    }


def _day(text: str | None) -> datetime | None:
    """Read the first moment of a day (UTC); None for what is none, or has no day after it."""
    try:
        day = datetime.fromisoformat(text or "").replace(tzinfo=UTC)
    except ValueError:
        return None
    return day if day.year < MAXYEAR else None
