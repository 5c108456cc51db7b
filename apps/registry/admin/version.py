"""The screens of versions: list, upload, page with the report as a checklist."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse

from apps.accounts.admin.door import caller_of_request, teams_here
from apps.accounts.callers import Caller
from apps.accounts.models import Team
from apps.accounts.policies import Action, Thing, may, require
from apps.accounts.selectors import actor_of, teams_of
from apps.core.admin import ReasonActionForm
from apps.core.words import ago, size_words, state_pill
from apps.registry.admin import release_page
from apps.registry.admin.door import RegistryAdmin, dialog
from apps.registry.admin.filters import FormatFilter, StateFilter, TeamOfVersionFilter
from apps.registry.admin.upload_page import SAID
from apps.registry.admin.version_page import page_context
from apps.registry.models import ModelVersion, RegisteredModel
from apps.registry.services import lifecycle
from apps.registry.snippets import upload_snippets
from apps.registry.states import RELEASABLE, VersionState, may_move

MOST_NAMES = 500


@admin.register(ModelVersion)
class VersionAdmin(RegistryAdmin):
    team_path = "model__team"
    exported_as, export_team = "version.exported", "model.team_id"
    model_path = "model__"
    list_display = ("title", "state_shown", "format", "size_shown", "uploaded_by", "uploaded")
    list_select_related = ("model", "uploaded_by")
    list_filter = (TeamOfVersionFilter, StateFilter, FormatFilter)
    search_fields = ("model__name", "sha256", "uploaded_by__username")
    search_help_text = "Search by model, SHA-256 or uploader"
    empty_title = "No versions yet"
    empty_step = "Upload a file and it becomes version 1 of a model."
    add_words = "Upload a version"
    ordering = ("-id",)
    change_list_template = "admin/accounts/list.html"
    actions_detail = ("deprecate", "archive", "restore")
    actions = ("deprecate_chosen", "archive_chosen")
    action_form = ReasonActionForm
    change_form_template = "admin/registry/version.html"
    # The page says everything in its own words and order; there is no form.
    fields = readonly_fields = ("number",)

    @admin.display(description="Version", ordering="id")
    def title(self, version: ModelVersion) -> str:
        return str(version)

    @admin.display(description="State", ordering="state")
    def state_shown(self, version: ModelVersion) -> str:
        return state_pill(version.state)

    @admin.display(description="Uploaded", ordering="id")
    def uploaded(self, version: ModelVersion) -> str:
        return ago(version.created)

    @admin.display(description="Size", ordering="size")
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
        return bool(teams_here(request, Action.VERSION_UPLOAD))

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
        chosen = request.GET.get("model", "")
        host = request.build_absolute_uri("/").rstrip("/")
        context = {
            **self.admin_site.each_context(request),
            "title": "Upload a version",
            "opts": self.opts,
            "teams": teams,
            "model_names": names.order_by("name").values_list("name", flat=True)[:MOST_NAMES],
            "chosen": chosen,
            "said": SAID,
            "may_carry_code": any(_may_upload_code(caller, team) for team in teams),
            "most_bytes": settings.MAX_ARTIFACT_BYTES,
            "snippets": upload_snippets(host=host, model=chosen or "my-model"),
            "progress_url": reverse("registry-pages:upload-progress", args=["NAME", 0]),
            "has_permission": True,
        }
        return TemplateResponse(request, "admin/registry/upload.html", context)

    def get_urls(self) -> list[Any]:
        return [
            path(
                "<int:pk>/release/",
                self.admin_site.admin_view(release_page.release_version),
                name="registry_modelversion_release",
            ),
            *super().get_urls(),
        ]

    def page_context(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        if found is None:
            return {}
        may_release = self.has_release_permission(request, found)
        return page_context(request, found) | {"may_release": may_release}

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
        found: ModelVersion = self.visible(request, getattr(row, "pk", row))
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

    @dialog(
        "Deprecate version",
        permission="deprecate",
        says="It goes on serving where it is released; people are warned off it.",
    )
    def deprecate(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._moved(request, object_id, form, lifecycle.deprecate)

    @dialog(
        "Archive version",
        permission="archive",
        says="It can no longer be released or tried. Its files stay.",
    )
    def archive(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._moved(request, object_id, form, lifecycle.archive)

    @dialog(
        "Restore version",
        permission="restore",
        says="It is ready again and can be released.",
    )
    def restore(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._moved(request, object_id, form, lifecycle.restore)

    @admin.action(description="Deprecate versions")
    def deprecate_chosen(self, request: HttpRequest, chosen: QuerySet[ModelVersion]) -> None:
        self._move_each(request, chosen, lifecycle.deprecate, "deprecated")

    @admin.action(description="Archive versions")
    def archive_chosen(self, request: HttpRequest, chosen: QuerySet[ModelVersion]) -> None:
        self._move_each(request, chosen, lifecycle.archive, "archived")

    def _move_each(self, request: HttpRequest, chosen: Any, move: Any, done: str) -> None:
        caller = caller_of_request(request)

        def act(version: ModelVersion, reason: str) -> None:
            require(caller, Action.VERSION_MOVE, self.thing_of(version))
            move(version, actor=actor_of(caller), reason=reason)

        self.act_on_each(request, chosen, act, done=done)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Offer what a role may do somewhere; each row is asked about by itself."""
        found: dict[str, Any] = super().get_actions(request)
        return found if teams_here(request, Action.VERSION_MOVE) else {}

    def _moved(self, request: HttpRequest, object_id: str, form: Any, move: Any) -> HttpResponse:
        version = self.get_queryset(request).get(pk=object_id)

        def act() -> str:
            actor = actor_of(caller_of_request(request))
            moved = move(version, actor=actor, reason=form.cleaned_data["reason"])
            return f"{moved} is {moved.state}."

        return self.done(request, act, back_to=version)


def _may_upload_code(caller: Caller, team: Team) -> bool:
    return may(caller, Action.VERSION_UPLOAD_CODE, Thing(team.pk))


def _may_upload(caller: Caller, team: Team) -> bool:
    return may(caller, Action.VERSION_UPLOAD, Thing(team.pk))
