"""Parts of pages that load by themselves, relative to ``/admin/registry-pages/``."""

from typing import Any

from django.contrib import admin
from django.urls import path

from apps.registry.pages.aliases import model_aliases
from apps.registry.pages.keys import key_curl, model_names, team_counts
from apps.registry.pages.teams import team_models
from apps.registry.pages.validation import upload_progress, version_progress


def _guarded(view: Any) -> Any:
    return admin.site.admin_view(view)


app_name = "registry-pages"
urlpatterns = [
    path("models/<int:pk>/aliases/", _guarded(model_aliases), name="aliases"),
    path("teams/<int:team>/models/", _guarded(team_models), name="team-models"),
    path("teams/<int:team>/model-names/", _guarded(model_names), name="model-names"),
    path("teams/counts/", _guarded(team_counts), name="team-counts"),
    path("keys/<str:key>/curl/", _guarded(key_curl), name="key-curl"),
    path("versions/<int:pk>/progress/", _guarded(version_progress), name="version-progress"),
    path(
        "uploads/<str:model>/<int:number>/progress/",
        _guarded(upload_progress),
        name="upload-progress",
    ),
]
