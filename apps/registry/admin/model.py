"""The screens of models: list, make, page with endpoints, versions and history."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from unfold.decorators import action
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.accounts.admin.door import caller_of_request
from apps.accounts.policies import Action, Thing, may
from apps.accounts.selectors import actor_of, teams_of
from apps.core.errors import Invalid, PlatformError
from apps.core.words import ago, link, size_words, table
from apps.registry import selectors
from apps.registry.admin.door import (
    ReasonForm,
    RegistryAdmin,
    history_table,
)
from apps.registry.models import ModelVersion, RegisteredModel, Release
from apps.registry.services import models
from apps.registry.services.models import ModelChange
from apps.registry.states import Environment, ReleaseState

SHOWN = 20
SETTINGS = (
    "cache_seconds",
    "record",
    "sample_share",
    "full_spool",
    "redact",
    "deadline_seconds",
)


class ModelForm(forms.ModelForm):  # type: ignore[type-arg]  # generic only for the type checker
    """A model's card and rules; tags are words with commas."""

    tags = forms.CharField(
        required=False, widget=UnfoldAdminTextInputWidget, help_text="Words, with commas."
    )

    class Meta:
        model = RegisteredModel
        fields = ("name", "team", "description", "tags", *SETTINGS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["tags"] = ", ".join(self.instance.tags)

    def clean_tags(self) -> list[str]:
        words = [word.strip() for word in str(self.cleaned_data["tags"]).split(",")]
        found = [word for word in words if word]
        _said_by(lambda: models.check_tags(found))
        return found

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        _said_by(lambda: models.check_name(name))
        return name

    def clean(self) -> dict[str, Any]:
        form: dict[str, Any] = super().clean() or {}
        if not self.errors and self.instance.pk:
            given = {name: form[name] for name in SETTINGS if name in form}
            _said_by(lambda: models.check_change(ModelChange(**given)))
        return form


def _said_by(check: Any) -> None:
    """Let a rule of the actions speak on the form."""
    try:
        check()
    except Invalid as error:
        raise forms.ValidationError(error.message) from error


@admin.register(RegisteredModel)
class ModelAdmin(RegistryAdmin):
    team_path = "team"
    model_path = ""
    form = ModelForm
    list_display = ("name", "team", "production", "newest", "created")
    list_select_related = ("team",)
    list_filter = ("team",)
    search_fields = ("name",)
    ordering = ("name",)
    actions_detail = ("delete_model",)
    change_form_outer_after_template = "admin/registry/model.html"

    @admin.display(description="In production")
    def production(self, model: Any) -> str:
        arms = model.live_arms or []
        return ", ".join(f"version {arm['version']}" for arm in arms) or "nothing"

    @admin.display(description="Newest version")
    def newest(self, model: Any) -> str:
        if model.newest_number is None:
            return "none yet"
        return f"{model.newest_number} ({model.newest_state})"

    def get_queryset(self, request: HttpRequest) -> QuerySet[RegisteredModel]:
        live = Release.objects.filter(
            endpoint__model=OuterRef("pk"),
            endpoint__environment=Environment.PRODUCTION,
            state=ReleaseState.LIVE,
        )
        newest = ModelVersion.objects.filter(model=OuterRef("pk")).order_by("-number")
        rows: QuerySet[RegisteredModel] = super().get_queryset(request)
        return rows.annotate(
            live_arms=Subquery(live.values("arms")[:1]),
            newest_number=Subquery(newest.values("number")[:1]),
            newest_state=Subquery(newest.values("state")[:1]),
        )

    def thing_of(self, row: RegisteredModel) -> Thing:
        return Thing(row.team_id, row.name)

    def has_add_permission(self, request: HttpRequest) -> bool:
        caller = caller_of_request(request)
        ids = teams_of(caller).values_list("pk", flat=True)
        return any(may(caller, Action.MODEL_WRITE, Thing(team)) for team in ids)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, Action.MODEL_WRITE, obj)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ModelForm.Meta.fields if obj else ("name", "team", "description", "tags")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("name", "team") if obj else ()

    def formfield_for_foreignkey(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        if db_field.name == "team":
            caller = caller_of_request(request)
            writable = [
                team.pk
                for team in teams_of(caller)
                if may(caller, Action.MODEL_WRITE, Thing(team.pk))
            ]
            kwargs["queryset"] = teams_of(caller).filter(pk__in=writable)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        actor = actor_of(caller_of_request(request))
        if change:
            given = {name: form.cleaned_data[name] for name in form.changed_data}
            saved = models.change_model(obj, ModelChange(**given), actor=actor)
        else:
            saved = models.create_model(
                obj.name,
                team=obj.team,
                actor=actor,
                description=obj.description,
                tags=obj.tags,
            )
        # The admin logs and links the row it gave; it becomes the one that was saved.
        obj.__dict__.update(saved.__dict__)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = dict(extra_context or {})
        if object_id and request.method == "GET":
            found = self.get_queryset(request).filter(pk=object_id).first()
            context |= _page(found) if found is not None else {}
        try:
            reply: HttpResponse = super().changeform_view(request, object_id, form_url, context)
        except PlatformError as error:
            if request.method != "POST":
                raise
            self.message_user(request, error.message, messages.ERROR)
            return HttpResponseRedirect(request.path)
        return reply

    def has_delete_model_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is None or not self.allows(request, Action.MODEL_WRITE, obj):
            return False
        row = self.get_queryset(request).get(pk=getattr(obj, "pk", obj))
        thing = Thing(row.team_id, row.name, Environment.PRODUCTION)
        return may(caller_of_request(request), Action.RELEASE_ROLL_BACK, thing)

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Delete model",
        permissions=["delete_model"],
        dialog={
            "title": "Delete model",
            "description": "It stops serving everywhere within seconds. Its history stays, and "
            "its name cannot be used again.",
            "form_class": ReasonForm,
            "form_submit_text": "Delete model",
        },
    )
    def delete_model(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        model = self.get_queryset(request).get(pk=object_id)

        def act() -> str:
            models.delete_model(
                model,
                actor=actor_of(caller_of_request(request)),
                reason=form.cleaned_data["reason"],
            )
            return f"{model.name} is deleted."

        self.done(request, act, back_to=model)
        url = "../../../"
        return HttpResponse(headers={"HX-Redirect": request.build_absolute_uri(url)})


def _page(model: RegisteredModel) -> dict[str, Any]:
    """Endpoints, versions and history below the form."""
    endpoints = selectors.endpoints_of(model)
    versions = selectors.versions_of(model)[:SHOWN]
    return {
        "endpoints": table(
            ("Environment", "Serves", "Release", "Since", "Why"),
            (_endpoint_row(endpoint) for endpoint in endpoints),
        ),
        "versions": table(
            ("Version", "State", "Format", "Size", "Aliases", "Uploaded"),
            (
                (
                    link(version, f"Version {version.number}"),
                    version.state,
                    version.format or "-",
                    size_words(version.size),
                    ", ".join(alias.name for alias in version.aliases.all()) or "-",
                    ago(version.created),
                )
                for version in versions
            ),
        ),
        "events": history_table(selectors.history_of(model)[:SHOWN]),
    }


def _endpoint_row(endpoint: Any) -> tuple[object, ...]:
    live = endpoint.live[0] if endpoint.live else None
    if live is None:
        return (link(endpoint, endpoint.environment), "nothing", "-", "-", "-")
    arms = ", ".join(f"version {arm.version} ({arm.share:.0%})" for arm in live.typed_arms())
    return (
        link(endpoint, endpoint.environment),
        arms,
        link(live, f"Release {live.number}"),
        ago(live.decided),
        live.reason,
    )
