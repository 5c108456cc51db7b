"""Filters of the registry's lists, as chips above the list."""

from collections.abc import Iterator
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest

from apps.accounts.admin.filters import ChipsFilter, TeamFilter
from apps.core.words import state_words
from apps.registry.formats import Format
from apps.registry.models import Release
from apps.registry.selectors import awaiting_approval
from apps.registry.states import Environment, ReleaseState, VersionState

YES, NO = "yes", "no"


class NewestStateFilter(ChipsFilter):
    """State of a model's newest version."""

    title = "newest version"
    parameter_name = "newest"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one.value, one.value) for one in VersionState]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        return queryset.filter(newest_state=chosen) if chosen else queryset


class InProductionFilter(ChipsFilter):
    """Whether something of the model is live in production."""

    title = "in production"
    parameter_name = "production"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(YES, "Live"), (NO, "Nothing live")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in {YES, NO}:
            return queryset
        return queryset.filter(live_arms__isnull=self.value() == NO)


class StateFilter(ChipsFilter):
    """State of a version."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one.value, one.value) for one in VersionState]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        return queryset.filter(state=chosen) if chosen else queryset


class FormatFilter(ChipsFilter):
    """Format of a version's file."""

    title = "format"
    parameter_name = "format"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one.value, one.value) for one in Format]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        return queryset.filter(format=chosen) if chosen else queryset


class TeamOfVersionFilter(TeamFilter):
    """The team of a version's model."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value() or ""
        return queryset.filter(model__team_id=int(chosen)) if chosen.isdecimal() else queryset


class EnvironmentFilter(ChipsFilter):
    """Environment of an endpoint, or of a release's endpoint."""

    title = "environment"
    parameter_name = "environment"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one.value, one.value) for one in reversed(Environment)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        if not chosen:
            return queryset
        if queryset.model is Release:
            return queryset.filter(endpoint__environment=chosen)
        return queryset.filter(environment=chosen)


class ServingFilter(ChipsFilter):
    """Whether an endpoint serves something."""

    title = "serves"
    parameter_name = "serves"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(YES, "Something"), (NO, "Nothing")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in {YES, NO}:
            return queryset
        live = Exists(Release.objects.filter(endpoint=OuterRef("pk"), state=ReleaseState.LIVE))
        return queryset.filter(live if self.value() == YES else ~live)


class ReleaseStateFilter(ChipsFilter):
    """State of a release; those that await approval are shown first while there are any."""

    title = "state"
    parameter_name = "state"
    ALL = "all"

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self._waits = False
        if super().value() is None:
            rows = awaiting_approval(model_admin.get_queryset(request).order_by())
            self._waits = rows.exists()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one.value, state_words(one.value)) for one in ReleaseState]

    def value(self) -> str | None:
        chosen = super().value()
        return ReleaseState.AWAITING_APPROVAL.value if chosen is None and self._waits else chosen

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Offer all states by a value of its own: without one, those that wait may be meant."""
        chosen = self.value() or self.ALL
        for value, said in [(self.ALL, self.everything), *self.lookup_choices]:
            yield {
                "selected": value == chosen,
                "query_string": changelist.get_query_string({self.parameter_name: value}),
                "display": said,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        return queryset.filter(state=chosen) if chosen in frozenset(ReleaseState) else queryset
