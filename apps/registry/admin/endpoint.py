"""The screens of endpoints and releases: what serves, who decided, back by one click."""

from typing import Any

from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action, display

from apps.accounts.admin.door import caller_of_request
from apps.accounts.policies import Action, Thing
from apps.accounts.selectors import actor_of
from apps.core.words import ago, link, table
from apps.registry import selectors
from apps.registry.admin.door import (
    LABELS,
    ReasonForm,
    RegistryAdmin,
    RollbackForm,
    history_table,
)
from apps.registry.models import Endpoint, Release
from apps.registry.services import releases
from apps.registry.states import ReleaseState

SHOWN = 30


def arms_words(release: Release) -> str:
    """The arms in one line."""
    return ", ".join(
        f"version {arm.version} ({arm.role.value}, {arm.share:.0%})" for arm in release.typed_arms()
    )


@admin.register(Endpoint)
class EndpointAdmin(RegistryAdmin):
    team_path = "model__team"
    model_path = "model__"
    list_display = ("title", "environment", "serves", "since")
    list_select_related = ("model",)
    list_filter = ("environment",)
    search_fields = ("model__name",)
    ordering = ("model__name", "-environment")
    actions_detail = ("roll_back",)
    change_form_outer_after_template = "admin/registry/endpoint.html"
    fields = readonly_fields = ("model", "environment", "serves", "since", "required")

    @admin.display(description="model", ordering="model__name")
    def title(self, endpoint: Endpoint) -> str:
        return endpoint.model.name

    @admin.display(description="serves")
    def serves(self, endpoint: Any) -> str:
        return arms_words(endpoint.live[0]) if endpoint.live else "nothing"

    @admin.display(description="since")
    def since(self, endpoint: Any) -> str:
        return ago(endpoint.live[0].decided) if endpoint.live else "-"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Endpoint]:
        live = Release.objects.filter(state=ReleaseState.LIVE)
        rows = super().get_queryset(request).select_related("model__team")
        return rows.prefetch_related(Prefetch("releases", queryset=live, to_attr="live"))

    def thing_of(self, row: Endpoint) -> Thing:
        return Thing(row.model.team_id, row.model.name, row.environment)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = dict(extra_context or {})
        found = self.get_queryset(request).filter(pk=object_id).first() if object_id else None
        if found is not None:
            newest = list(selectors.releases_of(found)[:SHOWN])
            context["releases"] = table(
                ("Release", "State", "Serves", "Who", "Approved by", "Why", "When"),
                (_row(release) for release in newest),
            )
            context["events"] = history_table(selectors.history_of_releases(newest)[:SHOWN])
        reply: HttpResponse = super().changeform_view(request, object_id, form_url, context)
        return reply

    def has_roll_back_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Offer it only where an older release has served: else there is nothing to go back to."""
        served = (ReleaseState.LIVE, ReleaseState.REPLACED)
        past = Release.objects.filter(endpoint=getattr(obj, "pk", obj), state__in=served)
        return (
            obj is not None
            and past.count() > 1
            and self.allows(request, Action.RELEASE_ROLL_BACK, obj)
        )

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Roll back",
        permissions=["roll_back"],
        dialog={
            "title": "Roll back",
            "description": "What an older release served takes all traffic within seconds. It "
            "does not wait for approval.",
            "form_class": RollbackForm,
            "form_submit_text": "Roll back",
        },
    )
    def roll_back(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        endpoint = self.get_queryset(request).get(pk=object_id)
        caller = caller_of_request(request)

        def act() -> str:
            made = releases.roll_back(
                endpoint,
                to=form.cleaned_data["to"],
                reason=form.cleaned_data["reason"],
                actor=actor_of(caller),
                person_id=caller.user_id,
            )
            back = made.rolled_back_to
            return f"Release {made.number} serves what release {back.number if back else 0} served."

        return self.done(request, act, back_to=endpoint)


def _row(release: Release) -> tuple[object, ...]:
    return (
        link(release, f"Release {release.number}"),
        release.state.replace("_", " "),
        arms_words(release),
        release.actor_name,
        release.approver_name or "-",
        release.reason,
        ago(release.created),
    )


@admin.register(Release)
class ReleaseAdmin(RegistryAdmin):
    team_path = "endpoint__model__team"
    model_path = "endpoint__model__"
    list_display = ("title", "state_word", "serves", "actor_name", "reason", "created")
    list_select_related = ("endpoint__model",)
    list_filter = ("state", "endpoint__environment")
    search_fields = ("endpoint__model__name", "reason")
    ordering = ("-id",)
    actions_detail = ("approve", "reject")
    change_form_outer_after_template = "admin/registry/release.html"
    fields = readonly_fields = (
        "endpoint",
        "number",
        "state_word",
        "serves",
        "reason",
        "actor_name",
        "approver_name",
        "decision_reason",
        "rolled_back_to",
        "created",
        "decided",
        "rolled_out_at",
    )

    @admin.display(description="release", ordering="id")
    def title(self, release: Release) -> str:
        return str(release)

    @display(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="state", label={one.replace("_", " "): c for one, c in LABELS.items()}
    )
    def state_word(self, release: Release) -> str:
        return release.state.replace("_", " ")

    @admin.display(description="serves")
    def serves(self, release: Release) -> str:
        return arms_words(release)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Release]:
        return super().get_queryset(request).select_related("endpoint__model__team")

    def thing_of(self, row: Release) -> Thing:
        model = row.endpoint.model
        return Thing(model.team_id, model.name, row.endpoint.environment)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = dict(extra_context or {})
        found = self.get_queryset(request).filter(pk=object_id).first() if object_id else None
        if found is not None:
            live = selectors.live_release(found.endpoint)
            context["endpoint_link"] = link(found.endpoint, f"Endpoint {found.endpoint}")
            context["serves_now"] = arms_words(live) if live else "nothing"
            context["would_serve"] = arms_words(found)
            context["is_waiting"] = found.state == ReleaseState.AWAITING_APPROVAL
            context["events"] = history_table(selectors.history_of(found)[:SHOWN])
        reply: HttpResponse = super().changeform_view(request, object_id, form_url, context)
        return reply

    def _may_decide(self, request: HttpRequest, obj: Any) -> bool:
        if obj is None:
            return False
        waiting = self.get_queryset(request).filter(
            pk=getattr(obj, "pk", obj), state=ReleaseState.AWAITING_APPROVAL
        )
        found = waiting.first()
        return found is not None and self.allows(request, Action.RELEASE_APPROVE, found)

    def has_approve_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        found = obj is not None and self.get_queryset(request).filter(
            pk=getattr(obj, "pk", obj), requested_by_id=caller_of_request(request).user_id
        )
        return not found and self._may_decide(request, obj)

    def has_reject_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_decide(request, obj)

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Approve release",
        permissions=["approve"],
        dialog={
            "title": "Approve release",
            "description": "It goes live within seconds, after it is loaded and warm.",
            "form_class": ReasonForm,
            "form_submit_text": "Approve release",
        },
    )
    def approve(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._decided(request, form, object_id, releases.approve)

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Reject release",
        permissions=["reject"],
        dialog={
            "title": "Reject release",
            "description": "What serves now goes on serving.",
            "form_class": ReasonForm,
            "form_submit_text": "Reject release",
        },
    )
    def reject(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._decided(request, form, object_id, releases.reject)

    def _decided(
        self, request: HttpRequest, form: Any, object_id: str, decide: Any
    ) -> HttpResponse:
        release = self.get_queryset(request).get(pk=object_id)
        caller = caller_of_request(request)

        def act() -> str:
            decided = decide(
                release,
                actor=actor_of(caller),
                person_id=caller.user_id,
                reason=form.cleaned_data["reason"],
            )
            return f"Release {decided.number} is {decided.state.replace('_', ' ')}."

        return self.done(request, act, back_to=release)
