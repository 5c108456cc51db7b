"""The screens of API keys: make one and see it once, change, rotate and revoke it."""

from datetime import timedelta
from http import HTTPStatus
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import action

from apps.accounts.admin import words as said
from apps.accounts.admin.door import AccountsAdmin, caller_of_request, teams_here
from apps.accounts.admin.filters import ChipsFilter, TeamFilter
from apps.accounts.admin.key_forms import (
    KeyEditForm,
    KeyForm,
    RevokeForm,
    RevokeManyForm,
    RotateForm,
)
from apps.accounts.callers import Caller
from apps.accounts.models import ApiKey, Plan, User
from apps.accounts.policies import Action, Scope, Thing, require, require_held
from apps.accounts.selectors import actor_of, key_state, keys_in_state, keys_of
from apps.accounts.services import keys, unused_keys
from apps.core import words
from apps.core.errors import PlatformError
from apps.core.models import Event

HISTORY = 30
STATES = ("active", "unused", "expires soon", "expired", "revoked")
MOST_ADDRESSES = 20


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


class PlanFilter(ChipsFilter):
    title = "plan"
    parameter_name = "plan"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(Plan.objects.order_by("title").values_list("name", "title"))

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        return queryset.filter(plan=self.value()) if self.value() else queryset


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
    exported_as, export_team = "key.exported", "team_id"
    form = KeyForm
    change_list_template = "admin/accounts/list.html"
    list_after_template = "admin/accounts/apikey/cells.html"
    add_form_template = "admin/accounts/apikey/add.html"
    change_form_template = "admin/accounts/apikey/page.html"
    list_display = ("key", "whose", "may", "on", "reaches", "state", "used", "calls", "ends")
    list_filter = (WhoseFilter, StateFilter, PlanFilter, ReachFilter, TeamFilter)
    actions = ("revoke_chosen",)
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

    @admin.display(description="Plan")
    def on(self, key: ApiKey) -> str:
        return format_html('<span title="{}">{}</span>', said.plan_words(key.plan), key.plan.title)

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
        return words.ago(key.last_used_at) if key.last_used_at else "never"

    @admin.display(description="Calls, 24 h")
    def calls(self, key: ApiKey) -> str:
        return format_html('<span id="cell-key-calls-{}" class="mp-right">…</span>', key.pk)

    @admin.display(description="Expires")
    def ends(self, key: ApiKey) -> str:
        return words.ago(key.expires_at)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        caller = caller_of_request(request)
        return keys_of(caller, managed=teams_here(request, Action.KEY_MANAGE))

    def get_urls(self) -> list[Any]:
        def guarded(view: Any) -> Any:
            return self.admin_site.admin_view(view)

        return [
            path("<str:object_id>/edit/", guarded(self.edit), name="accounts_apikey_edit"),
            path("<str:object_id>/rotate/", guarded(self.rotate), name="accounts_apikey_rotate"),
            *super().get_urls(),
        ]

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is not None:
            return super().get_form(request, obj, change, **kwargs, form=forms.ModelForm)
        form = super().get_form(request, obj, change, **kwargs)
        return type("KeyFormOfRequest", (form,), {"caller": caller_of_request(request)})

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("name",) if obj else tuple(KeyForm.base_fields)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.get_fields(request, obj) if obj else ()

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(teams_here(request, Action.KEY_ISSUE))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Ask for the key's own rule; unfold gives the id, or the row."""
        found = self.get_queryset(request).filter(pk=getattr(object_id, "pk", object_id))
        if isinstance(object_id, str) and not found.exists():
            raise Http404("There is no such key here.")
        return found.filter(revoked_at__isnull=True).exists()

    def page_context(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        return _facts(found, _caller(request)) if found else {"title": "Make key"}

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        made, text = keys.issue_key(
            form.cleaned_data["team"],
            owner=User.objects.get(pk=caller_of_request(request).user_id),
            wish=form.wish(),
            actor=actor_of(caller_of_request(request)),
        )
        # The admin logs and shows the row it gave; it becomes the one that was made.
        obj.__dict__.update(made.__dict__)
        request.issued_key = text  # type: ignore[attr-defined]  # for this reply only

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret, once; it is nowhere else."""
        text: str = request.issued_key  # type: ignore[attr-defined]  # set by save_model
        return self._issued(request, obj, text)

    def _issued(
        self, request: HttpRequest, key: ApiKey, text: str, *, former: ApiKey | None = None
    ) -> HttpResponse:
        context = {
            "title": f"The key {key.name} is made",
            "key": key,
            "former": former,
            "text": text,
            "scopes": said.scope_words(key.scopes),
            "models": said.reach_words(key.model_names),
            "plan": said.plan_words(key.plan),
            "networks": said.network_words(key.networks),
            "may_predict": Scope.PREDICT.value in key.scopes,
            "done_url": reverse("admin:accounts_apikey_change", args=[key.pk]),
        }
        return self._page(request, "admin/accounts/apikey/issued.html", context)

    def _page(self, request: HttpRequest, template: str, said_here: dict[str, Any]) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, **said_here}
        return TemplateResponse(request, template, context)

    def edit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Change what a key may do; its page says what came of it."""
        key = self._held(request, object_id)
        form_class = type("KeyEditFormOfRequest", (KeyEditForm,), {"caller": _caller(request)})
        form = form_class(request.POST or None, instance=key)
        if request.method == "POST" and form.is_valid():
            return self._changed(request, key, form.change())
        context = {"title": f"Change {key.name}", "form": form, "key": key}
        return self._page(request, "admin/accounts/apikey/edit.html", context)

    def _changed(self, request: HttpRequest, key: ApiKey, change: keys.KeyChange) -> HttpResponse:
        try:
            keys.change_key(key, change=change, actor=actor_of(_caller(request)))
        except PlatformError as error:
            self.message_user(request, error.message, messages.ERROR)
        else:
            self.message_user(
                request, f"{key.name} is changed, everywhere within seconds.", messages.SUCCESS
            )
        return HttpResponseRedirect(reverse("admin:accounts_apikey_change", args=[key.pk]))

    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Make a key's successor and show its secret, once."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        key = self._held(request, object_id)
        form = RotateForm(request.POST)
        hours = int(form.cleaned_data["overlap"]) if form.is_valid() else None
        overlap = keys.OVERLAP if hours is None else timedelta(hours=hours)
        try:
            made, text = keys.rotate_key(key, actor=actor_of(_caller(request)), overlap=overlap)
        except PlatformError as error:
            self.message_user(request, error.message, messages.ERROR)
            return HttpResponseRedirect(reverse("admin:accounts_apikey_change", args=[key.pk]))
        return self._issued(request, made, text, former=key)

    def _held(self, request: HttpRequest, key_id: str) -> ApiKey:
        """Return a key that the one who looks may change; what is not theirs is not there."""
        key = self.get_queryset(request).filter(pk=key_id).first()
        if key is None:
            raise Http404("There is no such key here.")
        if not _may_change(_caller(request), key):
            raise PermissionDenied
        return key

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

    @admin.action(description="Revoke the chosen keys")
    def revoke_chosen(
        self, request: HttpRequest, queryset: QuerySet[ApiKey]
    ) -> HttpResponse | None:
        """Ask for one reason, then revoke each; who sees a key here may revoke it."""
        living = queryset.filter(revoked_at__isnull=True)
        form = RevokeManyForm(request.POST if "reason" in request.POST else None)
        if not form.is_valid():
            context = {
                "title": "Revoke keys",
                "form": form,
                "keys": list(living),
                "action": "revoke_chosen",
            }
            return self._page(request, "admin/accounts/apikey/revoke_many.html", context)
        actor, reason = actor_of(_caller(request)), form.cleaned_data["reason"]
        chosen = list(living)
        for key in chosen:
            keys.revoke_key(key, actor=actor, reason=reason)
        self.message_user(request, f"{len(chosen)} keys are revoked.", messages.SUCCESS)
        return None


def _caller(request: HttpRequest) -> Caller:
    return caller_of_request(request)


def _may_change(caller: Caller, key: ApiKey) -> bool:
    own = key.owner_id == caller.user_id
    try:
        require(caller, Action.KEY_ISSUE if own else Action.KEY_MANAGE, Thing(key.team_id))
        require_held(caller, owner_id=key.owner_id, owner_is_admin=key.owner.is_superuser)
    except PlatformError:
        return False
    return True


def _facts(key: ApiKey, caller: Caller) -> dict[str, Any]:
    """What the page of a key shows."""
    now = timezone.now()
    successor = ApiKey.objects.filter(replaces=key).first()
    lives = key.revoked_at is None and key.expires_at > now
    may_change = lives and _may_change(caller, key)
    events = Event.objects.filter(target_kind=ApiKey._meta.label_lower, target_id=key.pk)
    known = {scope.value: text for scope, text in said.SCOPES.items()}
    return {
        "key": key,
        "title": key.name,
        "key_state": key_state(key, now),
        "is_unused": unused_keys.unused_keys(ApiKey.objects.filter(pk=key.pk), now).exists(),
        "successor": successor,
        "former": key.replaces,
        "plan": said.plan_words(key.plan),
        "networks": said.network_words(key.networks),
        "addresses": key.addresses.order_by("-last")[:MOST_ADDRESSES],
        "records_addresses": settings.RECORD_ADDRESSES,
        "may_change": may_change,
        "rotate_form": RotateForm() if may_change and successor is None else None,
        "scopes": [known.get(one, (one, "")) for one in key.scopes],
        "models": said.reach_words(key.model_names),
        "may_predict": Scope.PREDICT.value in key.scopes and key.revoked_at is None,
        "events": events.order_by("-id")[:HISTORY],
    }
