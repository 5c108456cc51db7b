"""Fragments of the ground floor: how far background work has come."""

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from apps.core.admin import is_platform_admin
from apps.core.models import Work
from apps.core.work import progress_of


@never_cache
@require_GET
def work_progress(request: HttpRequest, work: int) -> HttpResponse:
    """Draw one piece of work for platform admins; others see it on the page of its subject."""
    if not is_platform_admin(request):
        raise PermissionDenied("Only platform admins see all background work.")
    found = Work.objects.filter(pk=work).first()
    if found is None:
        raise Http404("There is no such work; finished work is dropped after a month.")
    return render(
        request, "core/work_progress.html", {"work": found, "progress": progress_of(found)}
    )
