"""Pages of monitoring, relative to ``/admin/``: for people who are signed in there."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.http import HttpResponse
from django.urls import URLPattern, path

from apps.monitoring.pages import bell, palette


def _page(route: str, view: Callable[..., HttpResponse], name: str) -> URLPattern:
    # The admin's own door: who is not signed in is sent to its sign-in page.
    guarded: Any = admin.site.admin_view(view)
    page: URLPattern = path(f"monitoring/{route}", guarded, name=name)
    return page


app_name = "monitoring"
_search: Any = admin.site.admin_view(palette.search)
urlpatterns = [
    # Over unfold's own, which is found by its name and has this address.
    path("search/", _search, name="search"),
    _page("bell/", bell.bell, "bell"),
    _page("bell/read/", bell.mark_read, "bell-read"),
    _page("notifications/", bell.notifications, "notifications"),
    _page("notifications/<int:notification>/", bell.open_one, "notification"),
]
