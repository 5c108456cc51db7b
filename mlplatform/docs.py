"""The API's documentation, offline: everything comes from this machine, no script stands in a page.

A login is asked for unless ``MLP_PUBLIC_DOCS`` says otherwise.
"""

from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.contrib.staticfiles import finders
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import (
    SpectacularAPIView,
    SpectacularRedocView,
    SpectacularSwaggerSplitView,
)
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller

REDOC = "drf_spectacular_sidecar/redoc/bundles/redoc.standalone.js"
# The bundle's only picture from another host; a page of ours asks no other host for anything.
FOREIGN_LOGO = "https://cdn.redoc.ly/redoc/logo-mini.svg"
NO_PICTURE = "data:,"


class Readers(BasePermission):
    """Anybody when the docs are public, else whoever has signed in or presents a credential."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not settings.PUBLIC_DOCS:
            caller(request)
        return True


class SchemaView(SpectacularAPIView):
    """GET /api/schema: the OpenAPI document."""

    permission_classes = (Readers,)
    throttle_classes = ()


class _Page(APIView):
    """A page for people: without a login it leads to one."""

    permission_classes = (Readers,)
    throttle_classes = ()
    url_name = "schema"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not settings.PUBLIC_DOCS and not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path(), reverse(settings.LOGIN_URL))
        return super().dispatch(request, *args, **kwargs)


class SwaggerView(_Page, SpectacularSwaggerSplitView):
    """GET /docs: the document as a page where one can try things."""


class RedocView(_Page, SpectacularRedocView):
    """GET /redoc: the document as a page to read."""

    template_name = "docs/redoc.html"

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        if "script" in request.GET:
            return HttpResponse(redoc_script(), content_type="text/javascript; charset=utf-8")
        reply = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]  # untyped there
        reply.data["script_url"] = f"{request.path}?script"
        return reply


@cache
def redoc_script() -> str:
    """Return the bundle without its one picture from another host."""
    path = finders.find(REDOC)
    if not isinstance(path, str):
        raise Http404
    return Path(path).read_text(encoding="utf-8").replace(FOREIGN_LOGO, NO_PICTURE)
