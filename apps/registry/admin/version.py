"""The screens of versions: list, upload, page with the report as a checklist."""

import json
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminFileFieldWidget

from apps.accounts.admin.door import caller_of_request
from apps.accounts.callers import Caller
from apps.accounts.models import Team
from apps.accounts.policies import Action, Thing, may, require
from apps.accounts.selectors import actor_of, teams_of
from apps.core.words import ago, link, size_words, table
from apps.registry import selectors
from apps.registry.admin.door import (
    LABELS,
    ReasonForm,
    RegistryAdmin,
    ReleaseForm,
    history_table,
)
from apps.registry.models import ModelVersion, RegisteredModel
from apps.registry.services import lifecycle, releases
from apps.registry.states import RELEASABLE, UNDER_WAY, ReleaseState, VersionState, may_move

SHOWN = 20
MOST_NAMES = 500
FILE_ATTRIBUTES = {"id": "upload-file", "required": True, "aria-describedby": "file-error"}
CHECK_LABELS = {"passed": "success", "failed": "danger", "warning": "warning", "skipped": ""}


@admin.register(ModelVersion)
class VersionAdmin(RegistryAdmin):
    team_path = "model__team"
    model_path = "model__"
    list_display = ("title", "state_word", "format", "size_shown", "uploaded_by", "created")
    list_select_related = ("model", "uploaded_by")
    list_filter = ("state", "format")
    search_fields = ("model__name", "sha256")
    ordering = ("-id",)
    actions_detail = ("release", "deprecate", "archive", "restore")
    change_form_outer_before_template = "admin/registry/version.html"
    fields = readonly_fields = (
        "filename",
        "format",
        "container",
        "runtime",
        "size_shown",
        "sha256",
        "served_sha256",
        "uploaded_by",
        "parent",
        "created",
        "decided",
        "description",
    )

    @admin.display(description="version", ordering="id")
    def title(self, version: ModelVersion) -> str:
        return str(version)

    @display(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="state", label=LABELS
    )
    def state_word(self, version: ModelVersion) -> str:
        return version.state

    @admin.display(description="size")
    def size_shown(self, version: ModelVersion) -> str:
        return size_words(version.size)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelVersion]:
        # The list shows none of these, and a report can be large.
        heavy = ("report", "signature", "example", "declared_signature")
        rows = super().get_queryset(request).select_related("model__team", "uploaded_by", "parent")
        match = request.resolver_match
        is_list = match is not None and (match.url_name or "").endswith("_changelist")
        return rows.defer(*heavy) if is_list else rows

    def thing_of(self, row: ModelVersion) -> Thing:
        return Thing(row.model.team_id, row.model.name)

    def has_add_permission(self, request: HttpRequest) -> bool:
        caller = caller_of_request(request)
        return any(_may_upload(caller, team) for team in teams_of(caller))

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The upload page: its script posts to the upload door and follows the version's state."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        caller = caller_of_request(request)
        teams = [team for team in teams_of(caller) if _may_upload(caller, team)]
        names = RegisteredModel.objects.filter(team__in=teams, deleted_at__isnull=True)
        context = {
            **self.admin_site.each_context(request),
            "title": "Upload a version",
            "opts": self.opts,
            "teams": teams,
            "model_names": names.order_by("name").values_list("name", flat=True)[:MOST_NAMES],
            "chosen": request.GET.get("model", ""),
            "page_url": reverse("admin:registry_modelversion_uploaded", args=["NAME", 0]),
            "file_field": UnfoldAdminFileFieldWidget().render("file", None, FILE_ATTRIBUTES),
            "has_permission": True,
        }
        return TemplateResponse(request, "admin/registry/upload.html", context)

    def get_urls(self) -> list[Any]:
        # Where the upload's script goes when the verdict is known: it knows name and number only.
        return [
            path(
                "of/<str:model>/<int:number>/",
                self.admin_site.admin_view(self.uploaded_view),
                name="registry_modelversion_uploaded",
            ),
            *super().get_urls(),
        ]

    def uploaded_view(self, request: HttpRequest, model: str, number: int) -> HttpResponse:
        """Go to the page of a version by its name and number."""
        found = get_object_or_404(self.get_queryset(request), model__name=model, number=number)
        return redirect("admin:registry_modelversion_change", found.pk)

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
            context |= _page(found)
        reply: HttpResponse = super().changeform_view(request, object_id, form_url, context)
        return reply

    # -- what may be done, by state and permission ---------------------------------------------

    def _may_move(self, request: HttpRequest, row: Any, to: VersionState) -> bool:
        found = self._row(request, row)
        return (
            found is not None
            and may_move(VersionState(found.state), to)
            and self.allows(request, Action.VERSION_MOVE, found)
        )

    def _row(self, request: HttpRequest, row: Any) -> ModelVersion | None:
        if row is None:
            return None
        found: ModelVersion | None = (
            self.get_queryset(request).filter(pk=getattr(row, "pk", row)).first()
        )
        return found

    def has_release_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        found = self._row(request, obj)
        return (
            found is not None
            and found.state in RELEASABLE
            and self.allows(request, Action.RELEASE_ASK, found)
        )

    def has_deprecate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_move(request, obj, VersionState.DEPRECATED)

    def has_archive_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_move(request, obj, VersionState.ARCHIVED)

    def has_restore_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        found = self._row(request, obj)
        good = found is not None and found.was_judged_good
        return good and self._may_move(request, obj, VersionState.READY)

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Release version",
        permissions=["release"],
        dialog={
            "title": "Release version",
            "description": "It takes all traffic of the environment within seconds, after it is "
            "loaded and warm. Where production asks for approval, it waits for another person.",
            "form_class": ReleaseForm,
            "form_submit_text": "Release version",
        },
    )
    def release(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        version = self.get_queryset(request).get(pk=object_id)
        environment = form.cleaned_data["environment"]

        def act() -> str:
            return release_version(
                caller_of_request(request), version, environment, form.cleaned_data["reason"]
            )

        return self.done(request, act, back_to=version)

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Deprecate version",
        permissions=["deprecate"],
        dialog={
            "title": "Deprecate version",
            "description": "It goes on serving where it is released; people are warned off it.",
            "form_class": ReasonForm,
            "form_submit_text": "Deprecate version",
        },
    )
    def deprecate(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._moved(request, object_id, form, lifecycle.deprecate)

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Archive version",
        permissions=["archive"],
        dialog={
            "title": "Archive version",
            "description": "It can no longer be released or tried. Its files stay.",
            "form_class": ReasonForm,
            "form_submit_text": "Archive version",
        },
    )
    def archive(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._moved(request, object_id, form, lifecycle.archive)

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Restore version",
        permissions=["restore"],
        dialog={
            "title": "Restore version",
            "description": "It is ready again and can be released.",
            "form_class": ReasonForm,
            "form_submit_text": "Restore version",
        },
    )
    def restore(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._moved(request, object_id, form, lifecycle.restore)

    def _moved(self, request: HttpRequest, object_id: str, form: Any, move: Any) -> HttpResponse:
        version = self.get_queryset(request).get(pk=object_id)

        def act() -> str:
            actor = actor_of(caller_of_request(request))
            moved = move(version, actor=actor, reason=form.cleaned_data["reason"])
            return f"{moved} is {moved.state}."

        return self.done(request, act, back_to=version)


def release_version(caller: Caller, version: ModelVersion, environment: str, reason: str) -> str:
    """Release a version from a page; say what became of it."""
    waits = releases.needs_approval(environment)
    asked = Action.RELEASE_ASK if waits else Action.RELEASE_MAKE
    require(caller, asked, Thing(version.model.team_id, version.model.name, environment))
    made = releases.make_release(
        selectors.find_endpoint(version.model, environment),
        version=version.number,
        reason=reason,
        actor=actor_of(caller),
        person_id=caller.user_id,
    )
    if made.state == ReleaseState.LIVE:
        return f"{version} is live in {environment}: release {made.number}."
    return f"Release {made.number} of {version} to {environment} waits for another person."


def _may_upload(caller: Caller, team: Team) -> bool:
    return may(caller, Action.VERSION_UPLOAD, Thing(team.pk))


def _page(version: ModelVersion) -> dict[str, Any]:
    """What the version's page says above the plain facts, in the order in which people ask."""
    report = version.report or {}
    return {
        "version": version,
        "state_colour": LABELS.get(version.state, ""),
        "is_under_way": version.state in UNDER_WAY,
        "serves_in": selectors.environments_serving(version),
        "reason": report.get("reason"),
        "checks": [_check(one) for one in report.get("checks", ())],
        "model_link": link(version.model, version.model.name),
        "measured": _measured(report.get("measurements") or {}),
        "conversion": _conversion(report.get("conversion")),
        "findings": _findings(report.get("scanners") or ()),
        "inputs": _tensors(version, "inputs"),
        "outputs": _tensors(version, "outputs"),
        "metrics": table(("Metric", "Value"), sorted((version.metrics or {}).items())),
        "facts": _facts(version),
        "events": history_table(selectors.history_of(version)[:SHOWN]),
        "predict_url": f"/api/v1/predict/{version.model.name}",
        "example": json.dumps(version.example) if version.example is not None else "",
        "ago": ago(version.created),
    }


def _check(one: dict[str, Any]) -> dict[str, Any]:
    seconds = float(one.get("seconds") or 0)
    taken = f"{seconds:.2f} s" if seconds >= 0.01 else ""
    return {**one, "colour": CHECK_LABELS.get(str(one.get("state")), ""), "taken": taken}


def _conversion(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """How far the converted model is from the original, in few digits."""
    numbers = ("max_abs_difference", "tolerance")
    return found and {**found, **{name: f"{float(found[name]):.1e}" for name in numbers}}


def _measured(found: dict[str, Any]) -> dict[str, Any]:
    latency = found.get("latency_ms") or {}
    rows = [
        ("Loads in", f"{found.get('load_seconds', 0):.2f} s"),
        ("Memory when loaded", size_words(int(found.get("resident_bytes", 0)))),
        ("One row, typical (p50)", f"{latency.get('p50', 0):.2f} ms"),
        ("One row, slow (p99)", f"{latency.get('p99', 0):.2f} ms"),
    ]
    return table(("Measured at validation", "Value"), rows if found else ())


def _findings(scanners: Any) -> list[str]:
    return [
        f"{scanner.get('name')}: {finding.get('name')} ({finding.get('safety')})"
        for scanner in scanners
        for finding in scanner.get("findings", ())
    ]


def _tensors(version: ModelVersion, side: str) -> dict[str, Any]:
    specs = (version.signature or {}).get(side, ())
    return table(
        (side.capitalize(), "Type", "Shape", "Columns or categories"),
        (
            (
                spec["name"],
                spec["dtype"],
                str(spec["shape"]).replace("-1", "any"),
                ", ".join(map(str, spec.get("columns") or spec.get("categories") or ()))[:300],
            )
            for spec in specs
        ),
    )


def _facts(version: ModelVersion) -> dict[str, Any]:
    said = {**(version.params or {}), **(version.lineage or {}), **(version.tags or {})}
    shown = ((name, str(value)[:300]) for name, value in sorted(said.items()))
    return table(("Parameter, lineage or tag", "Value"), shown)
