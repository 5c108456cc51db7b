"""The base of our admin screens, and the screens of the ground floor's own tables."""

import re
from html import unescape
from typing import Any, TypeVar

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import label_for_field, lookup_field, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.urls import path
from django.utils import timezone
from django.utils.html import format_html, strip_tags
from unfold.admin import ModelAdmin

from apps.core import sheets, words
from apps.core.errors import PlatformError
from apps.core.models import Work
from apps.core.paging import CappedPaginator
from apps.core.work import progress_of

# Rows of one export; more of them are had by narrower filters.
MOST_EXPORTED = 10_000

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


class PlatformAdmin(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """What all our screens share."""

    show_full_result_count = False
    paginator = CappedPaginator
    list_per_page = 50
    # What an empty list says: what is not here yet, the next step, and the words of its button.
    empty_title = ""
    empty_step = ""
    add_words = ""

    def get_urls(self) -> list[Any]:
        opts = self.opts
        name = f"{opts.app_label}_{opts.model_name}_csv"
        view = self.admin_site.admin_view(self.list_as_csv)
        return [path("csv/", view, name=name), *super().get_urls()]

    def list_as_csv(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        """Send the rows that the list shows at this address, in its columns, as CSV."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        shown = self.get_changelist_instance(request)
        rows = shown.get_queryset(request)[:MOST_EXPORTED]
        columns = [name for name in shown.list_display if name != "action_checkbox"]
        heads = [str(label_for_field(name, self.model, self)) for name in columns]
        name = f"{self.opts.verbose_name_plural}-{timezone.now():%Y-%m-%dT%H%M}.csv"
        return StreamingHttpResponse(
            sheets.csv_lines(heads, ([self._cell(name, row) for name in columns] for row in rows)),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
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
        found = self.get_object(request, unquote(object_id)) if object_id else None
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
