"""The screen of API keys: make one and see it once, look at what it may do, revoke it."""

from http import HTTPStatus
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminTextInputWidget

from apps.accounts.admin.door import AccountsAdmin, caller_of_request
from apps.accounts.callers import Caller
from apps.accounts.keys import KeyKind
from apps.accounts.models import ApiKey, Team, User
from apps.accounts.policies import (
    ENVIRONMENTS,
    PRODUCTION,
    Action,
    Scope,
    Thing,
    may,
    require,
    require_grantable,
)
from apps.accounts.selectors import actor_of, keys_of, teams_of
from apps.accounts.services import keys
from apps.core.errors import PlatformError


class KeyForm(forms.ModelForm):  # type: ignore[type-arg]  # generic only for the type checker
    """What a new key shall be; everything that can be wrong is said here."""

    # Set for each request by ``KeyAdmin.get_form``.
    caller: ClassVar[Caller]

    scopes = forms.MultipleChoiceField(
        choices=[(one.value, one.value) for one in Scope],
        initial=[Scope.PREDICT.value],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    environments = forms.MultipleChoiceField(
        choices=[(one, one) for one in ENVIRONMENTS],
        initial=[PRODUCTION],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="A test key never reaches production.",
    )
    model_names = forms.CharField(
        label="Models",
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="Names of the models it may use, with commas; empty for all of the team.",
    )

    class Meta:
        model = ApiKey
        fields = ("name", "team", "kind", "scopes", "environments", "model_names", "expires_at")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "team" not in self.fields:  # looking at a key, not making one
            return
        self.fields["team"].queryset = teams_of(self.caller)  # type: ignore[attr-defined]
        self.fields["expires_at"].initial = timezone.now() + keys.LIFE

    def clean_model_names(self) -> list[str]:
        words = str(self.cleaned_data["model_names"]).split(",")
        return [word.strip() for word in words if word.strip()]

    def clean(self) -> dict[str, Any]:
        form: dict[str, Any] = super().clean() or {}
        if self.errors:
            return form
        try:
            team_id = form["team"].pk
            require(self.caller, Action.KEY_ISSUE, Thing(team_id))
            require_grantable(
                self.caller,
                team_id=team_id,
                kind=KeyKind(form["kind"]),
                scopes=form["scopes"],
                models=form["model_names"],
                environments=form["environments"],
            )
            keys.expiry(form["expires_at"])
        except PlatformError as error:
            words = [one.detail for one in error.problems] or [error.message]
            raise forms.ValidationError(words) from error
        return form


class RevokeForm(BaseDialogForm):  # type: ignore[misc]  # unfold ships no types
    reason = forms.CharField(
        max_length=500, widget=UnfoldAdminTextInputWidget, help_text="Kept in the history."
    )


@admin.register(ApiKey)
class KeyAdmin(AccountsAdmin):
    form = KeyForm
    list_display = ("name", "prefix", "team", "owner", "scope_words", "state", "expires_at")
    list_select_related = ("team", "owner")
    list_filter = ("kind", "team")
    search_fields = ("name", "id", "owner__username")
    ordering = ("-created",)
    actions_detail = ("revoke",)

    @admin.display(description="state")
    def state(self, key: ApiKey) -> str:
        if key.revoked_at:
            return "revoked"
        return "expired" if key.expires_at <= timezone.now() else "valid"

    @admin.display(description="scopes")
    def scope_words(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description="environments")
    def reaches(self, key: ApiKey) -> str:
        return ", ".join(key.environments)

    @admin.display(description="models")
    def models(self, key: ApiKey) -> str:
        return ", ".join(key.model_names) or "all of the team"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        caller = caller_of_request(request)
        return keys_of(caller, managed=_managed(caller))

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is not None:
            kwargs["form"] = forms.ModelForm
        form = super().get_form(request, obj, change, **kwargs)
        return type("KeyFormOfRequest", (form,), {"caller": caller_of_request(request)})

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return KeyForm.Meta.fields
        return (
            *("name", "prefix", "last4", "state", "team", "owner", "created_by", "scope_words"),
            *("reaches", "models", "created", "expires_at", "revoked_at", "revoked_by"),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.get_fields(request, obj) if obj else ()

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_staff)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        caller = caller_of_request(request)
        ids = teams_of(caller).values_list("pk", flat=True)
        return any(may(caller, Action.KEY_ISSUE, Thing(team)) for team in ids)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Ask for the key's own rule; unfold gives the id, or the row."""
        found = self.get_queryset(request).filter(pk=getattr(object_id, "pk", object_id))
        return found.filter(revoked_at__isnull=True).exists()

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        made, text = keys.issue_key(
            obj.team,
            owner=User.objects.get(pk=caller_of_request(request).user_id),
            wish=keys.KeyWish(
                name=obj.name,
                scopes=obj.scopes,
                kind=KeyKind(obj.kind),
                models=obj.model_names,
                environments=obj.environments,
                expires_at=obj.expires_at,
            ),
            actor=actor_of(caller_of_request(request)),
        )
        # The admin logs and shows the row it gave; it becomes the one that was made.
        obj.__dict__.update(made.__dict__)
        request.issued_key = text  # type: ignore[attr-defined]

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret, once; it is nowhere else."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"The key {obj.name} is made",
            "opts": self.opts,
            "key": obj,
            "text": request.issued_key,  # type: ignore[attr-defined]
            "done_url": reverse("admin:accounts_apikey_change", args=[obj.pk]),
        }
        return TemplateResponse(request, "admin/accounts/apikey/issued.html", context)

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Revoke key",
        permissions=["revoke"],
        dialog={
            "title": "Revoke key",
            "description": "Programs that use this key are refused within seconds, for ever.",
            "form_class": RevokeForm,
            "form_submit_text": "Revoke key",
        },
    )
    def revoke(self, request: HttpRequest, form: RevokeForm, object_id: str) -> HttpResponse:
        key = self.get_queryset(request).get(pk=object_id)
        actor = actor_of(caller_of_request(request))
        keys.revoke_key(key, actor=actor, reason=form.cleaned_data["reason"])
        self.message_user(request, f"The key {key.name} is revoked.", messages.SUCCESS)
        url = reverse("admin:accounts_apikey_change", args=[key.pk])
        return HttpResponse(status=HTTPStatus.OK, headers={"HX-Redirect": url})


def _managed(caller: Caller) -> list[int]:
    ids = Team.objects.filter(pk__in=teams_of(caller)).values_list("pk", flat=True)
    return [team for team in ids if may(caller, Action.KEY_MANAGE, Thing(team))]
