"""What the registry's screens share: own teams only, dialogs that call one action, plain tables."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from unfold.decorators import action
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminTextareaWidget as TextareaWidget

from apps.accounts.admin.door import caller_of_request
from apps.accounts.policies import Action, Thing, may
from apps.accounts.selectors import teams_of
from apps.core import sentences, words
from apps.core.admin import PlatformAdmin
from apps.core.errors import PlatformError
from apps.core.models import Event
from apps.registry.states import ReleaseState, VersionState

# What unfold calls the colour beside each state's word.
LABELS = words.unfold_labels((*VersionState, *ReleaseState))


class ReasonForm(BaseDialogForm):  # type: ignore[misc]  # unfold ships no types
    reason = forms.CharField(
        max_length=2000, widget=TextareaWidget, help_text="Kept in the history."
    )


def dialog(title: str, *, permission: str, says: str) -> Callable[[Any], Any]:
    """Make a method an action of a row's page that asks for a reason first.

    Args:
        title: Verb and object; the button, the dialog and its submit button say the same.
        permission: ``has_<permission>_permission`` decides who sees it and who may do it.
        says: What will change.
    """
    made: Callable[[Any], Any] = action(
        description=title,
        permissions=[permission],
        dialog={
            "title": title,
            "description": says,
            "form_class": ReasonForm,
            "form_submit_text": title,
        },
    )
    return made


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
        found = self.visible(request, row)
        return may(caller_of_request(request), action, self.thing_of(found))

    def visible(self, request: HttpRequest, row: Any) -> Any:
        """Return the row of an id that unfold hands; another team's is not there."""
        if isinstance(row, Model):
            return row
        found = self.get_queryset(request).filter(pk=row).first()
        if found is None:
            raise Http404(f"There is no such {self.opts.verbose_name} here.")
        return found

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
        url = words.page_of(back_to)
        return HttpResponse(status=HTTPStatus.OK, headers={"HX-Redirect": url})


def history_table(events: Iterable[Event]) -> dict[str, Any]:
    """What happened, in words."""
    return words.table(
        ("When", "Who", "What", "Why"),
        (
            (
                words.ago(event.at),
                event.actor_name,
                sentences.headline(event),
                event.reason or words.DASH,
            )
            for event in events
        ),
    )
