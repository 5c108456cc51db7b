"""Pages of the ground floor, relative to ``/admin/``."""

from typing import Any

from django.contrib import admin
from django.urls import path

from apps.core import pages

_guarded: Any = admin.site.admin_view(pages.work_progress)

app_name = "core"
urlpatterns = [path("core/work/<int:work>/progress/", _guarded, name="work-progress")]
