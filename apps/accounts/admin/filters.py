"""Filters that stand above a list as chips or as a field to type into."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from apps.accounts.admin.door import caller_of_request
from apps.accounts.selectors import teams_of

MOST_TEAMS = 30


class ChipsFilter(admin.SimpleListFilter):
    """A few values to choose from; the first chip takes the filter away."""

    template = "admin/accounts/chips_filter.html"
    everything = "All"

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for choice in super().choices(changelist):
            is_all = choice["query_string"] == changelist.get_query_string(
                remove=[str(self.parameter_name)]
            )
            yield choice | ({"display": self.everything} if is_all else {})


class TextFilter(admin.SimpleListFilter):
    """A field to type into: its values are too many to list."""

    template = "admin/accounts/text_filter.html"
    kind = "text"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def has_output(self) -> bool:
        return True

    def value(self) -> str | None:
        typed = super().value()
        return typed.strip().replace("\x00", "") if typed else None

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        others = [
            (name, value)
            for name, values in changelist.filter_params.items()
            for value in values
            if name != self.parameter_name
        ]
        yield {
            "others": others,
            "name": self.parameter_name,
            "value": self.value() or "",
            "type": self.kind,
            "without": changelist.get_query_string(remove=[str(self.parameter_name)]),
        }


class TeamFilter(ChipsFilter):
    """The caller's own teams; a platform admin with very many types the name instead."""

    title = "team"
    parameter_name = "team"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        teams = teams_of(caller_of_request(request)).order_by("name")
        found = [(str(pk), name) for pk, name in teams.values_list("pk", "name")[: MOST_TEAMS + 1]]
        return found if 1 < len(found) <= MOST_TEAMS else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value() or ""
        return queryset.filter(team_id=int(chosen)) if chosen.isdecimal() else queryset


class SinceFilter(ChipsFilter):
    """A span of time until now; ``column`` is the time's."""

    title = "time"
    parameter_name = "since"
    column: ClassVar[str] = "at"
    everything = "Any time"
    spans: ClassVar[dict[str, tuple[str, timedelta]]] = {
        "1h": ("Last hour", timedelta(hours=1)),
        "24h": ("24 hours", timedelta(hours=24)),
        "7d": ("7 days", timedelta(days=7)),
        "30d": ("30 days", timedelta(days=30)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, words) for name, (words, _) in self.spans.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        span = self.spans.get(self.value() or "")
        if span is None:
            return queryset
        return queryset.filter(**{f"{self.column}__gte": timezone.now() - span[1]})
