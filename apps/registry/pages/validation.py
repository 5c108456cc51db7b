"""How far the validation of a version has come; the page opens anew when the verdict is there."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from apps.core.words import page_of
from apps.core.work import newest_of
from apps.registry.models import ModelVersion
from apps.registry.pages.door import version_of
from apps.registry.states import UNDER_WAY


@never_cache
@require_GET
def version_progress(request: HttpRequest, pk: int) -> HttpResponse:
    """Draw the stages on the version's own page; with the verdict it is loaded anew."""
    version = version_of(request, pk=pk)
    reply = _drawn(request, version)
    if version.state not in UNDER_WAY:
        reply["HX-Refresh"] = "true"
    return reply


@never_cache
@require_GET
def upload_progress(request: HttpRequest, model: str, number: int) -> HttpResponse:
    """Draw the stages on the upload page; with the verdict the version's page opens."""
    version = version_of(request, model__name=model, number=number)
    reply = _drawn(request, version)
    if version.state not in UNDER_WAY:
        reply["HX-Redirect"] = page_of(version)
    return reply


def _drawn(request: HttpRequest, version: ModelVersion) -> HttpResponse:
    progress = newest_of(ModelVersion._meta.label_lower, version.pk)
    words = {"version": version, "progress": progress, "is_under_way": version.state in UNDER_WAY}
    return render(request, "registry/progress.html", words)
