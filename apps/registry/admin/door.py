"""What the registry's screens share: own teams only, dialogs that call one action, plain tables."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from http import HTTPStatus
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.timesince import timesince
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget
from unfold.widgets import UnfoldAdminTextareaWidget as TextareaWidget

from apps.accounts.admin.door import caller_of_request
from apps.accounts.policies import Action, Thing, may
from apps.accounts.selectors import teams_of
from apps.core.admin import PlatformAdmin
from apps.core.errors import PlatformError
from apps.core.models import Event
from apps.registry.states import Environment

# The colour beside each state's word; the same on every screen.
COLOURS = {
    "uploaded": "",
    "validating": "info",
    "ready": "success",
    "rejected": "danger",
    "deprecated": "warning",
    "archived": "",
    "awaiting_approval": "info",
    "live": "success",
    "replaced": "",
}


class ReasonForm(BaseDialogForm):  # type: ignore[misc]  # unfold ships no types
    reason = forms.CharField(
        max_length=2000, widget=TextareaWidget, help_text="Kept in the history."
    )


class ReleaseForm(ReasonForm):
    environment = forms.ChoiceField(
        choices=[(one.value, one.value) for one in reversed(Environment)],
        widget=UnfoldAdminSelectWidget,
    )
    field_order = ("environment", "reason")


class RollbackForm(ReasonForm):
    to = forms.IntegerField(
        required=False,
        min_value=1,
        label="Release",
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="The release to go back to; left empty, the one that served before.",
    )
    field_order = ("to", "reason")


class RegistryAdmin(PlatformAdmin):
    """A screen over things of the caller's teams; ``team_path`` leads from the row to its team."""

    team_path: ClassVar[str]
    model_path: ClassVar[str]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        caller = caller_of_request(request)
        deleted = f"{self.model_path}deleted_at__isnull"
        rows = rows.filter(**{deleted: True})
        if caller.sees_all:
            return rows
        return rows.filter(**{f"{self.team_path}__in": teams_of(caller)})

    def thing_of(self, row: Any) -> Thing:
        """The row as permissions know it."""
        raise NotImplementedError

    def allows(self, request: HttpRequest, action: Action, row: Any) -> bool:
        """Whether the caller may do this to the row; unfold hands a row or its id."""
        if row is None:
            return False
        if not isinstance(row, Model):
            row = self.get_queryset(request).filter(pk=row).first()
        return row is not None and may(caller_of_request(request), action, self.thing_of(row))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_staff)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is None:
            return self.has_module_permission(request)
        return self.allows(request, Action.MODEL_READ, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def done(self, request: HttpRequest, act: Callable[[], str], *, back_to: Model) -> HttpResponse:
        """Do one action from a dialog, say how it went, and go back to the row's page."""
        try:
            self.message_user(request, act(), messages.SUCCESS)
        except PlatformError as error:
            self.message_user(request, error.message, messages.ERROR)
        url = page_of(back_to)
        return HttpResponse(status=HTTPStatus.OK, headers={"HX-Redirect": url})


def page_of(row: Model) -> str:
    """Where a row's page is."""
    opts = row._meta
    return reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=[row.pk])


def link(row: Model, words: object) -> str:
    """A link to a row's page."""
    return format_html('<a href="{}" class="text-primary-600">{}</a>', page_of(row), words)


def ago(moment: Any) -> str:
    """How long ago, with the exact time at hand."""
    if moment is None:
        return "-"
    exact = timezone.localtime(moment).strftime("%Y-%m-%d %H:%M:%S %Z")
    is_fresh = timezone.now() - moment < timedelta(minutes=1)
    words = "just now" if is_fresh else f"{timesince(moment, depth=1)} ago"
    return format_html('<span class="whitespace-nowrap" title="{}">{}</span>', exact, words)


def size_words(size: int) -> str:
    """Bytes as people say them."""
    value = float(size)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def table(headers: Iterable[str], rows: Iterable[Iterable[object]]) -> dict[str, Any]:
    """What unfold's table component draws."""
    return {"headers": list(headers), "rows": [list(row) for row in rows]}


def event_words(event: Event) -> str:
    """What happened, as a person would say it: *Version ready: wine 4*."""
    words = event.verb.replace(".", " ").replace("_", " ")
    return f"{words.capitalize()}: {event.target_name}"


def history_table(events: Iterable[Event]) -> dict[str, Any]:
    """What happened, in words."""
    return table(
        ("When", "Who", "What", "Why"),
        (
            (ago(event.at), event.actor_name, event_words(event), event.reason or "-")
            for event in events
        ),
    )
