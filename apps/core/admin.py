"""The base of our admin screens, and the screens of the ground floor's own tables."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import unescape
from operator import attrgetter
from typing import Any, ClassVar, TypeVar

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import label_for_field, lookup_field, unquote
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html, strip_tags
from unfold.admin import ModelAdmin
from unfold.forms import ActionForm

from apps.core import events, sheets, words
from apps.core.errors import PlatformError
from apps.core.events import Actor
from apps.core.models import Work
from apps.core.paging import CappedPaginator
from apps.core.work import progress_of

# Rows of one export; more of them are had by narrower filters.
MOST_EXPORTED = 10_000
# Rows that one action on a list takes, and how many of its refusals are told one by one.
MOST_AT_ONCE, MOST_SAID = 100, 5
MOST_REASON = 500
# Characters of an address line that the audit keeps.
MOST_FILTERS = 1000

M = TypeVar("M", bound=Model)


def is_platform_admin(request: HttpRequest) -> bool:
    """Whether the one who looks runs the platform; the menu asks for the entries of operators."""
    return bool(getattr(request.user, "is_superuser", False))


def installation_badge(request: HttpRequest) -> list[str] | None:
    """Return the word that says which installation this is, and its colour; None shows nothing."""
    name = settings.INSTALLATION
    if not name:
        return None
    return [name, "danger" if name.lower().startswith("prod") else "info"]


@transaction.atomic
def record_export(
    verb: str,
    table: type[Model],
    request: HttpRequest,
    *,
    what: str,
    counts: Mapping[int | None, int],
    filters: str,
) -> None:
    """Write that rows of a table left as a file.

    Args:
        verb: ``thing.exported``.
        table: Whose rows they are.
        request: Who asks, and from where.
        what: The rows in words, as *12 versions* says it.
        counts: Rows by team; None is for rows that are no team's.
        filters: The address line that chose them.
    """
    actor = Actor("user", str(request.user.pk), request.user.get_username())
    for team_id, rows in counts.items():
        events.record(
            verb,
            actor=actor,
            target=ContentType.objects.get_for_model(table, for_concrete_model=False),
            team_id=team_id,
            what=what,
            rows=rows,
            filters=filters[:MOST_FILTERS],
        )


class ReasonActionForm(ActionForm):  # type: ignore[misc]  # unfold ships no types
    """What is done to the chosen rows of a list, and why."""

    reason = forms.CharField(
        required=False,
        max_length=MOST_REASON,
        label="",
        widget=forms.TextInput(
            attrs={"class": "mp-input mp-small", "placeholder": "Reason", "aria-label": "Reason"}
        ),
    )


class PlatformAdmin(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """What all our screens share."""

    show_full_result_count = False
    paginator = CappedPaginator
    list_per_page = 50
    # What an empty list says: what is not here yet, the next step, and the words of its button.
    empty_title = ""
    empty_step = ""
    add_words = ""
    # What an export of the list is called in the audit, and where a row says whose team's it is.
    exported_as: ClassVar[str] = "list.exported"
    export_team: ClassVar[str] = ""
    # Filters whose value is somebody's personal data: the audit says that they were set.
    private_filters: ClassVar[frozenset[str]] = frozenset()

    def get_urls(self) -> list[Any]:
        opts = self.opts
        name = f"{opts.app_label}_{opts.model_name}_csv"
        view = self.admin_site.admin_view(self.list_as_csv)
        return [path("csv/", view, name=name), *super().get_urls()]

    def list_as_csv(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        """Send the rows that the list shows at this address, in its columns, as CSV.

        The event is written before the first row leaves; without it there is no file.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            shown = self.get_changelist_instance(request)
        except IncorrectLookupParameters:  # the list says what is wrong with the address
            name = f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"
            return HttpResponseRedirect(f"{reverse(name)}?e=1")
        rows = list(shown.get_queryset(request)[:MOST_EXPORTED])
        self._record_export(request, rows)
        columns = [name for name in shown.list_display if name != "action_checkbox"]
        heads = [str(label_for_field(name, self.model, self)) for name in columns]
        name = f"{self.opts.verbose_name_plural}-{timezone.now():%Y-%m-%dT%H%M}.csv"
        return StreamingHttpResponse(
            sheets.csv_lines(heads, ([self._cell(name, row) for name in columns] for row in rows)),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    def act_on_each(
        self,
        request: HttpRequest,
        rows: Iterable[Any],
        act: Callable[[Any, str], None],
        *,
        done: str,
    ) -> None:
        """Do one thing to each chosen row, each by itself; say how many it was, and what failed.

        Args:
            request: Who asks, and why.
            rows: Of the list as it is seen, so of one's own teams only.
            act: Asks whether it may, then acts; gets the row and the reason.
            done: What happened to a row, in a word: *archived*.
        """
        reason = request.POST.get("reason", "").strip()[:MOST_REASON]
        if not reason:
            self.message_user(request, "Say why, beside the action.", messages.ERROR)
            return
        acted, refused = 0, []
        for row in list(rows[:MOST_AT_ONCE] if isinstance(rows, QuerySet) else rows):
            try:
                act(row, reason)
            except PlatformError as error:
                refused.append(f"{row}: {error.message}")
            else:
                acted += 1
        if acted:
            self.message_user(request, f"{acted} {done}.", messages.SUCCESS)
        if refused:
            more = len(refused) - MOST_SAID
            told = [*refused[:MOST_SAID], *([f"and {more} more"] if more > 0 else [])]
            self.message_user(request, f"Not {done}: {' '.join(told)}", messages.ERROR)

    def _record_export(self, request: HttpRequest, rows: Sequence[Any]) -> None:
        """Write one event for each team whose rows leave, so that each can read of its own."""
        counts: Mapping[int | None, int] = Counter(
            map(attrgetter(self.export_team), rows) if self.export_team else ()
        )
        asked = request.GET.copy()
        for name in self.private_filters & asked.keys():
            asked[name] = "***"
        record_export(
            self.exported_as,
            self.model,
            request,
            what=str(self.opts.verbose_name_plural),
            counts=counts or {None: len(rows)},
            filters=asked.urlencode(),
        )

    def _cell(self, name: str, row: Any) -> str:
        """Write a cell of the list as text; a time in full, and not as an age."""
        _, _, value = lookup_field(name, row, self)
        exact = re.search(r'datetime="([^"]+)"', str(value))
        text = exact[1] if exact else unescape(strip_tags(str("" if value is None else value)))
        return " ".join(text.split())

    def page_context(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        """Return what a row's page shows besides its form; ``found`` is None where one is made."""
        return {}

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        found = self._found(request, object_id) if object_id else None
        context = {**(extra_context or {}), **self.page_context(request, found)}
        try:
            shown: HttpResponse = super().changeform_view(request, object_id, form_url, context)
        except PlatformError as error:  # what an action refused undid the whole form
            if request.method != "POST":
                raise
            said = [error.message, *(one.detail for one in error.problems)]
            self.message_user(request, " ".join(said), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        return shown

    def history_view(self, request: HttpRequest, object_id: str, *args: Any) -> HttpResponse:
        self._found(request, object_id)
        shown: HttpResponse = super().history_view(request, object_id, *args)
        return shown

    def delete_view(self, request: HttpRequest, object_id: str, *args: Any) -> HttpResponse:
        self._found(request, object_id)
        shown: HttpResponse = super().delete_view(request, object_id, *args)
        return shown

    def _found(self, request: HttpRequest, object_id: str) -> Any:
        """Find the row before anything is decided about it: a stranger's is not there at all.

        Who may open none of these pages is told so first, and learns of no row.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        found = self.get_object(request, unquote(object_id))
        if found is None:
            raise Http404(f"There is no such {self.opts.verbose_name} here.")
        return found

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, opts: Any, object_id: str
    ) -> HttpResponseRedirect:
        """Another team's thing looks like one that is not there, and neither has a page."""
        raise Http404(f"There is no such {opts.verbose_name} here.")

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Offer one button, which says what it does; more of the same is asked for anew."""
        context |= {"show_save_and_add_another": False, "show_save_and_continue": False}
        shown: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return shown


class ReadOnlyAdmin(PlatformAdmin):
    """A screen to look at; its rows change by actions only."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class WorkNameFilter(admin.SimpleListFilter):
    """Names that there are; finished work is dropped after a while, so that these are few rows."""

    title = "kind of work"
    parameter_name = "name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = Work.objects.order_by("name").values_list("name", flat=True).distinct()
        return [(name, kind_words(name)) for name in names]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(name=self.value()) if self.value() else queryset


def kind_words(name: str) -> str:
    """Say what kind of work it is: *validate version*."""
    return name.partition(".")[2].replace("_", " ") or name


@admin.register(Work)
class WorkAdmin(ReadOnlyAdmin):
    """Background work, for those who run the platform; it is looked at and never deleted here."""

    list_display = ("what", "how", "doing", "bar", "attempts", "trouble", "age")
    list_filter = ("state", WorkNameFilter)
    search_fields = ("id", "subject_id")
    search_help_text = "Number of the work, or of what it is about"
    ordering = ("-id",)
    list_per_page = 50
    fields = ("name", "args", "attempts", "not_before", "lease_until", "created", "error")
    readonly_fields = fields
    change_form_before_template = "core/work_before.html"

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_platform_admin(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_platform_admin(request)

    @admin.display(description="Work", ordering="id")
    def what(self, work: Work) -> str:
        return f"{work.pk}: {kind_words(work.name)}"

    @admin.display(description="State", ordering="state")
    def how(self, work: Work) -> str:
        return words.state_pill(work.state)

    @admin.display(description="Stage")
    def doing(self, work: Work) -> str:
        return work.stage or words.DASH

    @admin.display(description="Progress")
    def bar(self, work: Work) -> str:
        percent = progress_of(work).percent
        if percent is None:
            return words.DASH
        return format_html(
            '<progress class="mp-progress" max="100" value="{}" aria-label="{} % done">{} %'
            "</progress>",
            percent,
            percent,
            percent,
        )

    @admin.display(description="What went wrong")
    def trouble(self, work: Work) -> str:
        return work.problem[:200] or words.DASH

    @admin.display(description="Age", ordering="created")
    def age(self, work: Work) -> str:
        return words.ago(work.created)
