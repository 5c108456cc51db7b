"""The screens of API keys: make one and see it once, look at what it may do, revoke it."""

from datetime import datetime, time, timedelta
from http import HTTPStatus
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import action
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.accounts.admin import words as said
from apps.accounts.admin.door import AccountsAdmin, caller_of_request, teams_where
from apps.accounts.admin.filters import ChipsFilter, TeamFilter
from apps.accounts.callers import Caller
from apps.accounts.keys import KeyKind
from apps.accounts.models import ApiKey, User
from apps.accounts.policies import PRODUCTION, Action, Scope, Thing, require, require_grantable
from apps.accounts.selectors import actor_of, key_state, keys_in_state, keys_of, teams_of
from apps.accounts.services import keys
from apps.core import words
from apps.core.errors import PlatformError
from apps.core.models import Event

HISTORY = 30
LAST_SECOND = time(23, 59, 59)
STATES = ("active", "expires soon", "expired", "revoked")
# What a key's life is chosen from: days, or a date of one's own.
LIVES = (("30", "30 days"), ("90", "90 days"), ("365", "1 year"), ("date", "Until a date"))


class KeyForm(forms.ModelForm):  # type: ignore[type-arg]  # generic only for the type checker
    """What a new key shall be; everything that can be wrong is said here."""

    # Set for each request by ``KeyAdmin.get_form``.
    caller: ClassVar[Caller]

    kind = forms.ChoiceField(
        choices=[(one.value, name) for one, (name, _) in said.KINDS.items()],
        initial=KeyKind.LIVE.value,
    )
    scopes = forms.MultipleChoiceField(
        choices=[(one.value, said.SCOPES[one][0]) for one in said.OFFERED],
        initial=[Scope.PREDICT.value],
    )
    environments = forms.MultipleChoiceField(
        choices=[(one, one) for one in said.SHOWN_ENVIRONMENTS], initial=[PRODUCTION]
    )
    model_names = forms.CharField(label="Models", required=False)
    life = forms.ChoiceField(label="Expires", choices=LIVES, initial="365", required=False)
    expires_on = forms.DateField(label="Date", required=False)

    class Meta:
        model = ApiKey
        fields = ("name", "team", "kind", "scopes", "environments", "model_names")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        teams = teams_of(self.caller).filter(pk__in=teams_where(self.caller, Action.KEY_ISSUE))
        self.fields["team"].queryset = teams.order_by("name")  # type: ignore[attr-defined]  # a choice of rows
        if len(teams) == 1:
            self.fields["team"].initial = teams[0].pk

    @property
    def scope_choices(self) -> list[tuple[str, str, str, bool]]:
        """Scopes with their sentences, and which are chosen."""
        chosen = self["scopes"].value() or ()
        return [(one, *said.SCOPES[one], one in chosen) for one in said.OFFERED]

    @property
    def kind_choices(self) -> list[tuple[str, str, str, bool]]:
        """Kinds with their sentences, and which is chosen."""
        chosen = self["kind"].value()
        return [(one, name, text, one == chosen) for one, (name, text) in said.KINDS.items()]

    def clean_model_names(self) -> list[str]:
        typed = str(self.cleaned_data["model_names"]).split(",")
        return [word.strip() for word in typed if word.strip()]

    def clean(self) -> dict[str, Any]:
        form: dict[str, Any] = super().clean() or {}
        if self.errors:
            return form
        form["expires_at"] = self._end(form)
        self._check(lambda: keys.expiry(form["expires_at"]), "expires_on")
        team_id = form["team"].pk
        self._check(lambda: require(self.caller, Action.KEY_ISSUE, Thing(team_id)), "team")
        self._check(lambda: self._grantable(form, team_id), None)
        return form

    def _grantable(self, form: dict[str, Any], team_id: int) -> None:
        require_grantable(
            self.caller,
            team_id=team_id,
            kind=KeyKind(form["kind"]),
            scopes=form["scopes"],
            models=form["model_names"],
            environments=form["environments"],
        )

    def _end(self, form: dict[str, Any]) -> Any:
        """The moment at which the key ends; on a date it is that day's last one."""
        life = form["life"] or "365"
        if life != "date":
            return timezone.now() + timedelta(days=int(life))
        day = form["expires_on"]
        if day is None:
            self.add_error("expires_on", "Choose the date on which the key shall end.")
            return timezone.now() + keys.LIFE
        return timezone.make_aware(datetime.combine(day, LAST_SECOND))

    def _check(self, rule: Any, field: str | None) -> None:
        """Let a rule speak at the field it is about; the pointer of a problem says which."""
        try:
            rule()
        except PlatformError as error:
            for one in error.problems:
                name = one.pointer.split("/")[1] if one.pointer else ""
                at = {"expires_at": "expires_on", "models": "model_names"}.get(name, name)
                self.add_error(at if at in self.fields else field, one.detail)
            if not error.problems:
                self.add_error(field, error.message)


class RevokeForm(BaseDialogForm):  # type: ignore[misc]  # unfold ships no types
    form_before_template = "admin/accounts/apikey/revoke.html"
    reason = forms.CharField(
        max_length=500, widget=UnfoldAdminTextInputWidget, help_text="Kept in the history."
    )

    def get_before_template_context(
        self, request: HttpRequest, object_id: int | str | None = None
    ) -> dict[str, Any]:
        return {"key_id": object_id}


class WhoseFilter(ChipsFilter):
    title = "whose"
    parameter_name = "whose"
    everything = "Mine and my teams'"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("mine", "Mine"), ("team", "Other people's")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        mine = {"owner_id": caller_of_request(request).user_id}
        chosen = self.value()
        if chosen == "mine":
            return queryset.filter(**mine)
        return queryset.exclude(**mine) if chosen == "team" else queryset


class StateFilter(ChipsFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one, one.capitalize()) for one in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        chosen = self.value()
        return keys_in_state(queryset, chosen, timezone.now()) if chosen in STATES else queryset


class ReachFilter(ChipsFilter):
    title = "reaches"
    parameter_name = "environment"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one, one.capitalize()) for one in said.SHOWN_ENVIRONMENTS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        chosen = self.value()
        # The list is JSON; its words are asked for as text, which every database can.
        return queryset.filter(environments__icontains=f'"{chosen}"') if chosen else queryset


@admin.register(ApiKey)
class KeyAdmin(AccountsAdmin):
    form = KeyForm
    change_list_template = "admin/accounts/list.html"
    list_after_template = "admin/accounts/apikey/cells.html"
    add_form_template = "admin/accounts/apikey/add.html"
    change_form_template = "admin/accounts/apikey/page.html"
    list_display = ("key", "whose", "may", "reaches", "state", "used", "calls", "ends")
    list_filter = (WhoseFilter, StateFilter, ReachFilter, TeamFilter)
    list_filter_sheet = True
    search_fields = ("name", "id", "owner__username")
    search_help_text = "Name, key id or owner"
    ordering = ("-created",)
    sortable_by = ()
    actions_detail = ("revoke",)
    empty_title = "No keys yet"
    empty_step = "Programs ask for predictions with a key. Make one for each program."
    add_words = "Make key"

    @admin.display(description="Key")
    def key(self, key: ApiKey) -> str:
        return format_html(
            '<span class="mp-two"><span>{}</span><small class="mp-mono">{}…{}</small></span>',
            key.name,
            key.prefix,
            key.last4,
        )

    @admin.display(description="Team, owner")
    def whose(self, key: ApiKey) -> str:
        return format_html(
            '<span class="mp-two"><span>{}</span><small>{}</small></span>',
            key.team.name,
            key.owner.username,
        )

    @admin.display(description="May")
    def may(self, key: ApiKey) -> str:
        return said.scope_words(key.scopes)

    @admin.display(description="Models, environments")
    def reaches(self, key: ApiKey) -> str:
        return format_html(
            '<span class="mp-two"><span>{}</span><small>{}</small></span>',
            said.reach_words(key.model_names),
            ", ".join(key.environments),
        )

    @admin.display(description="State")
    def state(self, key: ApiKey) -> str:
        return words.state_pill(key_state(key, timezone.now()))

    @admin.display(description="Last used")
    def used(self, key: ApiKey) -> str:
        return format_html('<span id="cell-key-used-{}" class="mp-nowrap">…</span>', key.pk)

    @admin.display(description="Calls, 24 h")
    def calls(self, key: ApiKey) -> str:
        return format_html('<span id="cell-key-calls-{}" class="mp-right">…</span>', key.pk)

    @admin.display(description="Expires")
    def ends(self, key: ApiKey) -> str:
        return words.ago(key.expires_at)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        caller = caller_of_request(request)
        return keys_of(caller, managed=teams_where(caller, Action.KEY_MANAGE))

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is not None:
            return super().get_form(request, obj, change, **kwargs, form=forms.ModelForm)
        form = super().get_form(request, obj, change, **kwargs)
        return type("KeyFormOfRequest", (form,), {"caller": caller_of_request(request)})

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("name",) if obj else (*KeyForm.Meta.fields, "life", "expires_on")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.get_fields(request, obj) if obj else ()

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(teams_where(caller_of_request(request), Action.KEY_ISSUE))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Ask for the key's own rule; unfold gives the id, or the row."""
        found = self.get_queryset(request).filter(pk=getattr(object_id, "pk", object_id))
        return found.filter(revoked_at__isnull=True).exists()

    def page_context(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        return _page(found) if found else {"title": "Make key"}

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
                expires_at=form.cleaned_data["expires_at"],
            ),
            actor=actor_of(caller_of_request(request)),
        )
        # The admin logs and shows the row it gave; it becomes the one that was made.
        obj.__dict__.update(made.__dict__)
        request.issued_key = text  # type: ignore[attr-defined]  # for this reply only

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret, once; it is nowhere else."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"The key {obj.name} is made",
            "opts": self.opts,
            "key": obj,
            "text": request.issued_key,  # type: ignore[attr-defined]  # set by save_model
            "scopes": said.scope_words(obj.scopes),
            "models": said.reach_words(obj.model_names),
            "may_predict": Scope.PREDICT.value in obj.scopes,
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


def _page(key: ApiKey) -> dict[str, Any]:
    """What the page of a key shows."""
    events = Event.objects.filter(target_kind=ApiKey._meta.label_lower, target_id=key.pk)
    known = {scope.value: text for scope, text in said.SCOPES.items()}
    return {
        "key": key,
        "title": key.name,
        "key_state": key_state(key, timezone.now()),
        "scopes": [known.get(one, (one, "")) for one in key.scopes],
        "models": said.reach_words(key.model_names),
        "may_predict": Scope.PREDICT.value in key.scopes and key.revoked_at is None,
        "events": events.order_by("-id")[:HISTORY],
    }
