"""All doors of the roles ``web`` and ``dev``."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from apps.accounts.admin.people import change_own_password
from apps.accounts.pages.register import register_page
from apps.accounts.sso.views import SignInView
from apps.core.api.exceptions import problem_of
from apps.core.api.urls import both
from apps.core.errors import NotFound
from apps.inference.urls import HEALTH
from mlplatform.docs import RedocView, SchemaView, SwaggerView
from mlplatform.metrics import MetricsView

handler403 = "apps.core.api.exceptions.not_allowed"
handler404 = "apps.core.api.exceptions.page_not_found"
handler500 = "apps.core.api.exceptions.server_error"

APPS = ("accounts", "registry", "inference")


def no_such_version(request: HttpRequest, **_: str) -> HttpResponse:
    """Answer whoever guesses at a second version of this API."""
    return problem_of(
        NotFound(
            "There is no version 2 of this API. Its addresses begin with /api/v1/; the Open "
            "Inference Protocol has its own, beginning with /v2/."
        )
    )


urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index"), name="root"),
    # Over Django's own page: the second factor follows the password.
    path("admin/login/", SignInView.as_view()),
    path("account/", include("apps.accounts.sso.urls")),
    # Over Django's own page: a new password also ends the user's tokens.
    path("admin/password_change/", change_own_password),
    *(path("admin/", include(f"apps.{one}.urls")) for one in ("core", "monitoring")),
    path("admin/me/", include("apps.accounts.pages.urls")),
    *both("register", register_page, "register"),
    path("admin/inference-pages/", include("apps.inference.pages.urls")),
    path("admin/registry-pages/", include("apps.registry.pages.urls")),
    path("admin/", admin.site.urls),
    *both("docs", SwaggerView.as_view(), "docs"),
    *both("redoc", RedocView.as_view(), "redoc"),
    *both("api/schema", SchemaView.as_view(), "schema"),
    re_path(r"^api/v2(?:/.*)?$", no_such_version),
    *(path("api/v1/", include(f"apps.{one}.urls")) for one in APPS),
    # /api/<x> answers as /api/v1/<x>.
    *(path("api/", include(f"apps.{one}.urls", namespace=f"short-{one}")) for one in APPS),
    *HEALTH,
    *both("metrics", MetricsView.as_view(), "metrics"),
]
