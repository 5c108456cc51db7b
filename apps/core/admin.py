"""The base of our admin screens, and the screens of the ground floor's own tables."""

from typing import Any, TypeVar

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from apps.core.models import Event

M = TypeVar("M", bound=Model)


def is_platform_admin(request: HttpRequest) -> bool:
    """Whether the one who looks runs the platform; the menu asks for the entries of operators."""
    return bool(getattr(request.user, "is_superuser", False))


class PlatformAdmin(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """What all our screens share."""

    show_full_result_count = False
    list_per_page = 50


class ReadOnlyAdmin(PlatformAdmin):
    """A screen to look at; its rows change by actions only."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    """The audit record."""

    list_display = ("at", "actor_name", "verb", "target_name", "reason")
    list_filter = ("verb", "actor_kind")
    search_fields = ("target_name", "actor_name", "request_id")
    ordering = ("-id",)
