"""The screens of endpoints and releases: what serves, who decided, back by one click."""

from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, Prefetch, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils.html import format_html
from django.utils.text import Truncator

from apps.accounts.admin.door import caller_of_request
from apps.accounts.models import User
from apps.accounts.policies import Thing
from apps.accounts.selectors import teams_of
from apps.core.words import DASH, ago, state_pill
from apps.registry import selectors
from apps.registry.admin import release_page
from apps.registry.admin.door import RegistryAdmin
from apps.registry.admin.endpoint_page import endpoint_context, release_context
from apps.registry.admin.filters import EnvironmentFilter, ReleaseStateFilter, ServingFilter
from apps.registry.admin.release_page import arms_words
from apps.registry.models import Endpoint, Release
from apps.registry.release_checks import shares_of, versions_words
from apps.registry.snapshot import arm_from_json
from apps.registry.states import ReleaseState

REASON_CHARACTERS = 80
LIVE = Release.objects.filter(state=ReleaseState.LIVE)


@admin.register(Endpoint)
class EndpointAdmin(RegistryAdmin):
    team_path = "model__team"
    exported_as, export_team = "endpoint.exported", "model.team_id"
    model_path = "model__"
    list_display = ("title", "environment", "serves", "since", "who", "requests")
    list_select_related = ("model",)
    list_filter = (EnvironmentFilter, ServingFilter)
    search_fields = ("model__name",)
    search_help_text = "Search by model"
    empty_title = "No endpoints yet"
    empty_step = "A model has one endpoint per environment. Upload a version to make a model."
    # Two of three endpoints of a usual model serve nothing.
    ordering = (Exists(LIVE.filter(endpoint=OuterRef("pk"))).desc(), "model__name", "-environment")
    change_list_template = "admin/registry/endpoints.html"
    change_form_template = "admin/registry/endpoint.html"
    # The page says everything in its own words and order; there is no form.
    fields = readonly_fields = ("environment",)

    @admin.display(description="Model", ordering="model__name")
    def title(self, endpoint: Endpoint) -> str:
        return endpoint.model.name

    @admin.display(description="Serves")
    def serves(self, endpoint: Any) -> str:
        return arms_words(endpoint.live[0].typed_arms()) if endpoint.live else "nothing"

    @admin.display(description="Since")
    def since(self, endpoint: Any) -> str:
        return ago(endpoint.live[0].decided) if endpoint.live else DASH

    @admin.display(description="By")
    def who(self, endpoint: Any) -> str:
        return endpoint.live[0].actor_name if endpoint.live else DASH

    @admin.display(description="Requests, last hour")
    def requests(self, endpoint: Any) -> str:
        # Filled by one request for the whole list: traffic is known one floor above.
        name = f"{endpoint.environment}:{endpoint.model.name}"
        words = '<span id="cell-endpoint-rates-{}" class="mp-nowrap">{}</span>'
        return format_html(words, name, DASH)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Endpoint]:
        rows: QuerySet[Endpoint] = super().get_queryset(request).select_related("model__team")
        return rows.prefetch_related(Prefetch("releases", queryset=LIVE.all(), to_attr="live"))

    def thing_of(self, row: Endpoint) -> Thing:
        return release_page.thing_of(row)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        reply: Any = super().changelist_view(request, extra_context)
        shown = getattr(reply, "context_data", None) or {}
        if "cl" in shown:
            shown["shown_names"] = ",".join(
                f"{row.environment}:{row.model.name}" for row in shown["cl"].result_list
            )
        found: HttpResponse = reply
        return found

    def page_context(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        return endpoint_context(request, found) if found else {}


@admin.register(Release)
class ReleaseAdmin(RegistryAdmin):
    team_path = "endpoint__model__team"
    exported_as, export_team = "release.exported", "endpoint.model.team_id"
    model_path = "endpoint__model__"
    list_display = ("title", "environment", "state_shown", "change", "asked_by", "why", "age")
    list_select_related = ("endpoint__model",)
    list_filter = (ReleaseStateFilter, EnvironmentFilter)
    search_fields = ("endpoint__model__name", "actor_name", "reason")
    search_help_text = "Search by model, person or reason"
    empty_title = "No releases yet"
    empty_step = "Open a version that is ready and choose Release version."
    ordering = ("-id",)
    change_list_template = "admin/accounts/list.html"
    change_form_template = "admin/registry/release.html"
    fields = readonly_fields = ("number",)

    @admin.display(description="Release", ordering="id")
    def title(self, release: Release) -> str:
        return f"{release.endpoint.model.name}, release {release.number}"

    @admin.display(description="Environment", ordering="endpoint__environment")
    def environment(self, release: Release) -> str:
        return release.endpoint.environment

    @admin.display(description="State", ordering="state")
    def state_shown(self, release: Release) -> str:
        return state_pill(release.state)

    @admin.display(description="Change")
    def change(self, release: Any) -> str:
        before = tuple(arm_from_json(arm) for arm in release.arms_before or ())
        now = arms_words(release.typed_arms())
        if not before:
            return f"nothing → {now}"
        if shares_of(before) == shares_of(release.typed_arms()):
            return f"{now}, unchanged"
        return f"{versions_words(shares_of(before))} → {now}"

    @admin.display(description="Asked by", ordering="actor_name")
    def asked_by(self, release: Release) -> str:
        return release.actor_name

    @admin.display(description="Why")
    def why(self, release: Release) -> str:
        return Truncator(release.reason).chars(REASON_CHARACTERS) or DASH

    @admin.display(description="Asked", ordering="id")
    def age(self, release: Release) -> str:
        return ago(release.created)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Release]:
        served_before = Release.objects.filter(
            endpoint=OuterRef("endpoint"),
            number__lt=OuterRef("number"),
            state__in=selectors.SERVED,
        ).order_by("-number")
        rows: QuerySet[Release] = super().get_queryset(request)
        return rows.select_related("endpoint__model__team", "rolled_back_to").annotate(
            arms_before=Subquery(served_before.values("arms")[:1])
        )

    def thing_of(self, row: Release) -> Thing:
        return release_page.thing_of(row.endpoint)

    def get_urls(self) -> list[Any]:
        return [
            path(
                "<int:pk>/roll-back/",
                self.admin_site.admin_view(release_page.roll_back),
                name="registry_release_roll_back",
            ),
            path(
                "<int:pk>/decide/",
                self.admin_site.admin_view(release_page.decide),
                name="registry_release_decide",
            ),
            *super().get_urls(),
        ]

    def page_context(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        return release_context(request, found) if found else {}


def awaiting_badge(request: HttpRequest) -> str:
    """Return how many releases of the caller's teams await approval, for the menu; empty if none.

    One query, over an index that holds only those that wait.
    """
    if not isinstance(request.user, User) or not request.user.is_active:
        return ""
    caller = caller_of_request(request)
    rows = selectors.awaiting_approval(Release.objects.filter(endpoint__model__deleted_at=None))
    if not caller.sees_all:
        rows = rows.filter(endpoint__model__team__in=teams_of(caller))
    count = rows.count()
    return str(count) if count else ""
