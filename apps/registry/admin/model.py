"""The screens of models: list, make, page with endpoints, versions and history."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from unfold.decorators import action
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from apps.accounts.admin.door import caller_of_request, teams_here
from apps.accounts.admin.filters import TeamFilter
from apps.accounts.policies import Action, Thing, may
from apps.accounts.selectors import actor_of, teams_of
from apps.core.errors import Invalid
from apps.core.words import DASH, page_of, state_pill
from apps.registry import selectors
from apps.registry.admin.door import ReasonForm, RegistryAdmin
from apps.registry.admin.filters import InProductionFilter, NewestStateFilter
from apps.registry.admin.model_page import SETTINGS as SETTINGS_TAB
from apps.registry.admin.model_page import page_context
from apps.registry.admin.redaction import RedactionWidget, fields_of
from apps.registry.models import RegisteredModel
from apps.registry.services import models
from apps.registry.services.models import ModelChange
from apps.registry.snippets import upload_snippets
from apps.registry.states import Environment

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
        labels = {
            "description": "Model card",
            "deadline_seconds": "Deadline (seconds)",
            "cache_seconds": "Cache (seconds)",
            "sample_share": "Share kept in full",
            "full_spool": "When answers can no longer be recorded",
            "redact": "Redacted fields",
        }
        help_texts = {
            "description": "Markdown: what it foresees, what it was trained on, where it fails.",
            "deadline_seconds": "How long a caller waits at the most; then the answer is 504.",
            "sample_share": "With sample: the part of the calls kept in full, 0 to 1.",
            "record": "full: inputs and outputs; digest: shape, type and SHA-256 only; sample: "
            "some calls in full, the rest as digest.",
            "full_spool": "required: no answer without its record; best_effort: answer anyway "
            "and count what was not recorded.",
            "redact": "Inputs, columns, outputs, the unit, and the caller's own id. A hash is "
            "keyed, so that nobody can try values; a mask tells much where there are few values.",
        }
        widgets = {
            "description": UnfoldAdminTextareaWidget(attrs={"rows": 12}),
            "redact": RedactionWidget(),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "team" in self.fields:  # teams are made and changed on their own pages
            for doing in ("add", "change", "view", "delete"):
                setattr(self.fields["team"].widget, f"can_{doing}_related", False)
        if self.instance.pk:
            self.initial["tags"] = ", ".join(self.instance.tags)
        if "redact" in self.fields and self.instance.pk:
            self.fields["redact"].widget.known = fields_of(self.instance)

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


MOST_TAGS = 6
MADE = ((None, {"fields": ("name", "team", "description", "tags")}),)
CHANGED = (
    ("Card", {"fields": ("description", "tags")}),
    (
        "Answers",
        {
            "fields": ("deadline_seconds", "cache_seconds"),
            "description": "The same in every environment; a change serves within seconds.",
        },
    ),
    (
        "Record",
        {
            "fields": ("record", "sample_share", "redact", "full_spool"),
            "description": "What the prediction log keeps of each call.",
        },
    ),
)


@admin.register(RegisteredModel)
class ModelAdmin(RegistryAdmin):
    team_path = "team"
    exported_as, export_team = "model.exported", "team_id"
    model_path = ""
    form = ModelForm
    list_display = ("name", "team", "production", "newest", "traffic", "tags_shown")
    list_select_related = ("team",)
    list_filter = (TeamFilter, NewestStateFilter, InProductionFilter)
    search_fields = ("name", "team__name", "tags")
    search_help_text = "Search by model, team or tag"
    ordering = ("name",)
    actions_detail = ("delete_model",)
    add_words = "Make model"
    change_list_template = "admin/registry/models.html"
    change_form_template = "admin/registry/model.html"
    add_form_template = "admin/registry/model_add.html"

    @admin.display(description="In production")
    def production(self, model: Any) -> str:
        arms = model.live_arms or []
        words = ", ".join(f"version {arm['version']}" for arm in arms)
        return format_html('<span class="mp-nowrap">{}</span>', words) if arms else "nothing"

    @admin.display(description="Newest version", ordering="newest_number")
    def newest(self, model: Any) -> str:
        if model.newest_number is None:
            return "none yet"
        pill = state_pill(model.newest_state)
        return format_html('<span class="mp-row">{} {}</span>', model.newest_number, pill)

    @admin.display(description="Requests, last hour")
    def traffic(self, model: RegisteredModel) -> str:
        # Filled by one request for the whole list: traffic is known one floor above.
        return format_html(
            '<span id="cell-model-rates-{}" data-cell="{}" class="mp-nowrap">{}</span>',
            model.name,
            model.name,
            DASH,
        )

    @admin.display(description="Tags")
    def tags_shown(self, model: RegisteredModel) -> str:
        tags = ((tag,) for tag in model.tags[:MOST_TAGS])
        return format_html_join(" ", '<span class="mp-tag">{}</span>', tags) or DASH

    def get_queryset(self, request: HttpRequest) -> QuerySet[RegisteredModel]:
        return selectors.models_for_list(super().get_queryset(request))

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        reply: Any = super().changelist_view(request, extra_context)
        shown = getattr(reply, "context_data", None) or {}
        if "cl" in shown:
            shown["shown_names"] = ",".join(row.name for row in shown["cl"].result_list)
            shown["may_upload"] = self.has_add_permission(request)
            host = request.build_absolute_uri("/")
            shown["upload_snippets"] = upload_snippets(host=host, model="my-model")
        found: HttpResponse = reply
        return found

    def thing_of(self, row: RegisteredModel) -> Thing:
        return Thing(row.team_id, row.name)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(teams_here(request, Action.MODEL_WRITE))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, Action.MODEL_WRITE, obj)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> tuple[Any, ...]:
        return CHANGED if obj else MADE

    def formfield_for_foreignkey(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        if db_field.name == "team":
            writable = teams_here(request, Action.MODEL_WRITE)
            teams = teams_of(caller_of_request(request))
            kwargs["queryset"] = teams.filter(pk__in=writable)
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

    def page_context(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        if found is None:
            return {}
        may_upload = self._may_upload(request, found)
        return page_context(request, found) | {"title": found.name, "may_upload": may_upload}

    def response_change(self, request: HttpRequest, obj: RegisteredModel) -> HttpResponse:
        """Stay on the page whose settings were saved."""
        self.message_user(request, f"The settings of {obj.name} are saved.", messages.SUCCESS)
        return HttpResponseRedirect(f"{page_of(obj)}?tab={SETTINGS_TAB}")

    def response_add(
        self, request: HttpRequest, obj: RegisteredModel, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Go to the page of the model that was made: its first version is the next step."""
        self.message_user(request, f"The model {obj.name} is made.", messages.SUCCESS)
        return HttpResponseRedirect(page_of(obj))

    def _may_upload(self, request: HttpRequest, model: RegisteredModel) -> bool:
        return may(caller_of_request(request), Action.VERSION_UPLOAD, self.thing_of(model))

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
        url = reverse("admin:registry_registeredmodel_changelist")
        return HttpResponse(headers={"HX-Redirect": url})
