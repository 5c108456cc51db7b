"""The screen of users."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.http import require_POST
from unfold.decorators import action
from unfold.forms import AdminPasswordChangeForm, BaseDialogForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.accounts.admin.door import AccountsAdmin, caller_of_request
from apps.accounts.admin.filters import ChipsFilter
from apps.accounts.admin.invitations import invite_page, revoke
from apps.accounts.admin.plans import GivesPlan
from apps.accounts.models import ApiKey, Membership, User
from apps.accounts.policies import GRANTABLE, Action, Thing, may
from apps.accounts.selectors import actor_of, key_state, permissions_named
from apps.accounts.services import guards, invitations, mfa, people
from apps.core import events, words
from apps.core.admin import is_platform_admin
from apps.core.errors import LockedOut, PlatformError, WrongPassword
from apps.core.models import Event

if TYPE_CHECKING:
    from django.db.models import ManyToManyField
    from django.forms import ModelForm, ModelMultipleChoiceField

SHOWN_KEYS = 20
SWITCHES = {
    "is_active": ("May sign in", "Off: sign-in, tokens and keys are refused within seconds."),
    "is_staff": ("Uses these pages", "Off: only the API; roles in teams hold there as well."),
    "is_superuser": ("Platform admin", "May do everything in every team, and sees all of it."),
    "user_permissions": ("Granted besides roles", "For contributors; maintainers have it anyway."),
}
HISTORY = 30

# What a role is to us, Django's groups are not.
admin.site.unregister(Group)


class UnlockForm(BaseDialogForm):  # type: ignore[misc]  # unfold ships no types
    """Why somebody is let in again."""

    reason = forms.CharField(
        max_length=500, widget=UnfoldAdminTextInputWidget, help_text="Kept in the history."
    )


class RemoveFactorsForm(BaseDialogForm):  # type: ignore[misc]  # unfold ships no types
    """Why somebody's second factors go."""

    reason = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextInputWidget,
        help_text="How you know that it is the person who asks. Kept in the history.",
    )


class StandingFilter(ChipsFilter):
    title = "sign-in"
    parameter_name = "standing"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("active", "May sign in"),
            ("disabled", "Disabled"),
            ("never", "Never signed in"),
            ("admin", "Platform admins"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> QuerySet[User]:
        narrowed = {
            "active": {"is_active": True},
            "disabled": {"is_active": False},
            "never": {"last_login__isnull": True},
            "admin": {"is_superuser": True},
        }
        return queryset.filter(**narrowed.get(self.value() or "", {}))


@admin.register(User)
class UserAdmin(DjangoUserAdmin, GivesPlan, AccountsAdmin):  # type: ignore[type-arg,misc]  # no types of its own
    exported_as = "user.exported"
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    change_list_template = "admin/accounts/list.html"
    change_form_outer_after_template = "admin/accounts/user/beside.html"
    list_display = ("person", "teams_and_roles", "standing", "may_use_admin", "seen")
    list_filter = (StandingFilter,)
    list_filter_sheet = True
    actions_list = ("invite",)
    actions_detail = ("give_plan", "unlock", "remove_factors")
    search_fields = ("username", "email", "first_name", "last_name")
    search_help_text = "Name or email address"
    ordering = ("username",)
    sortable_by = ()
    readonly_fields = ("last_login", "date_joined")
    filter_horizontal = ()
    empty_title = "No people yet"
    empty_step = "Make a sign-in for a person, then add the person to a team."
    add_words = "Make sign-in"
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        (
            "What they may do",
            {
                "fields": ("is_active", "is_staff", "is_superuser", "user_permissions"),
                "description": "Any change here ends the user's tokens. Roles are given in teams.",
            },
        ),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = (
        (None, {"fields": ("username", "email", "usable_password", "password1", "password2")}),
    )

    @admin.display(description="Person")
    def person(self, user: User) -> str:
        full = user.get_full_name()
        said = f"{user.username}, {user.email}" if full and user.email else user.email or "no email"
        return format_html(
            '<span class="mp-two"><span>{}</span><small>{}</small></span>',
            full or user.username,
            said,
        )

    @admin.display(description="Teams and roles")
    def teams_and_roles(self, user: User) -> str:
        roles = [f"{one.team.name} ({one.role})" for one in user.memberships.all()]
        return ", ".join(roles) or "in no team"

    @admin.display(description="Sign-in")
    def standing(self, user: User) -> str:
        if not user.is_active:
            return words.state_pill("disabled")
        return words.state_pill("active")

    @admin.display(description="Uses")
    def may_use_admin(self, user: User) -> str:
        if user.is_superuser:
            return "admin of the platform"
        return "pages and API" if user.is_staff else "API only"

    @admin.display(description="Last sign-in")
    def seen(self, user: User) -> str:
        return words.ago(user.last_login) if user.last_login else "never"

    def get_urls(self) -> list[Any]:
        return [
            path(
                "invitations/<int:number>/revoke/",
                self.admin_site.admin_view(require_POST(self.revoke_invitation)),
                name="accounts_user_revoke_invitation",
            ),
            *super().get_urls(),
        ]

    def has_invite_permission(self, request: HttpRequest) -> bool:
        may_invite = may(caller_of_request(request), Action.PERSON_INVITE, Thing())
        return may_invite and invitations.is_on()

    def has_unlock_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Offer it to those who have this page, for somebody who is locked out."""
        if not self.has_module_permission(request):
            return False
        found = User.objects.filter(pk=getattr(object_id, "pk", object_id)).first()
        return found is not None and guards.locked_until(found) is not None

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Invite somebody", url_path="invite", permissions=["invite"]
    )
    def invite(self, request: HttpRequest) -> HttpResponse:
        """Invite somebody who shall make an account, without a team."""
        return invite_page(request, None)

    def revoke_invitation(self, request: HttpRequest, number: int) -> HttpResponse:
        """Take an invitation without a team back."""
        if not may(caller_of_request(request), Action.PERSON_INVITE, Thing()):
            raise PermissionDenied
        try:
            self.message_user(request, revoke(request, None, number), messages.SUCCESS)
        except PlatformError as error:
            self.message_user(request, error.message, messages.ERROR)
        return HttpResponseRedirect(reverse("admin:accounts_user_changelist"))

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Unlock",
        permissions=["unlock"],
        dialog={
            "title": "Unlock",
            "description": "The count of failed sign-ins is forgotten; the next try is taken.",
            "form_class": UnlockForm,
            "form_submit_text": "Unlock",
        },
    )
    def unlock(self, request: HttpRequest, form: UnlockForm, object_id: str) -> HttpResponse:
        user = User.objects.get(pk=object_id)
        actor = actor_of(caller_of_request(request))
        guards.unlock(user, actor=actor, reason=form.cleaned_data["reason"])
        self.message_user(request, f"{user.username} may try again.", messages.SUCCESS)
        url = reverse("admin:accounts_user_change", args=[user.pk])
        return HttpResponse(status=HTTPStatus.OK, headers={"HX-Redirect": url})

    def has_remove_factors_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Offer it to those who have this page, for somebody who has a second factor."""
        if not self.has_module_permission(request):
            return False
        found = User.objects.filter(pk=getattr(object_id, "pk", object_id)).first()
        return found is not None and mfa.has_second_factor(found)

    @action(  # type: ignore[untyped-decorator]  # unfold ships no types
        description="Remove second factors",
        url_path="remove-factors",
        permissions=["remove_factors"],
        dialog={
            "title": "Remove second factors",
            "description": "App, passkeys and recovery codes go, and the person is signed out "
            "everywhere. The password alone opens the door until new ones are set up.",
            "form_class": RemoveFactorsForm,
            "form_submit_text": "Remove second factors",
        },
    )
    def remove_factors(
        self, request: HttpRequest, form: RemoveFactorsForm, object_id: str
    ) -> HttpResponse:
        user = User.objects.get(pk=object_id)
        actor = actor_of(caller_of_request(request))
        mfa.remove_all(user, actor=actor, reason=form.cleaned_data["reason"])
        self.message_user(request, f"{user.username} has no second factor.", messages.SUCCESS)
        url = reverse("admin:accounts_user_change", args=[user.pk])
        return HttpResponse(status=HTTPStatus.OK, headers={"HX-Redirect": url})

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        rows: QuerySet[User] = super().get_queryset(request)
        memberships = Membership.objects.select_related("team").order_by("team__name")
        return rows.prefetch_related(Prefetch("memberships", queryset=memberships))

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Sign-ins of everybody are a matter of platform admins."""
        return is_platform_admin(request) and request.user.is_active

    def page_context(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        if found is None:
            return {}
        history = Event.objects.filter(
            target_kind=User._meta.label_lower, target_id=str(found.pk)
        ).exclude(verb="user.refreshed")
        newest = ApiKey.objects.filter(owner=found).order_by("-created")[:SHOWN_KEYS]
        return {
            "locked_until": guards.locked_until(found),
            "memberships": found.memberships.all(),
            "keys": [(key, key_state(key, timezone.now())) for key in newest],
            "events": history.order_by("-id")[:HISTORY],
        }

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Say each switch in our words."""
        field: Any = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and db_field.name in SWITCHES:
            field.label, field.help_text = SWITCHES[db_field.name]
        return field

    def formfield_for_manytomany(
        self, db_field: "ManyToManyField[Any, Any]", request: HttpRequest, **kwargs: Any
    ) -> "ModelMultipleChoiceField[Any] | None":
        """Offer the few permissions that are granted per person."""
        if db_field.name == "user_permissions":
            kwargs["queryset"] = permissions_named(GRANTABLE)
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Write what was changed here alone: the rest may be another than when it was read."""
        if not change:
            obj.save()
            return
        columns = {one.name for one in obj._meta.concrete_fields}
        obj.save(update_fields=columns.intersection(form.changed_data))

    def save_related(
        self, request: HttpRequest, form: "ModelForm[User]", formsets: Any, change: bool
    ) -> None:
        super().save_related(request, form, formsets, change)
        people.standing_changed(
            form.instance,
            actor=actor_of(caller_of_request(request)),
            changed=sorted(set(form.changed_data) - {"password1", "password2"}),
            created=not change,
            changes=_changes(form) if change else None,
        )

    @transaction.atomic
    def user_change_password(
        self,
        request: HttpRequest,
        id: str,  # noqa: A002 - Django's name
        form_url: str = "",
    ) -> HttpResponse:
        reply = super().user_change_password(request, id, form_url)
        if request.method == "POST" and isinstance(reply, HttpResponseRedirect):
            password_changed(User.objects.get(pk=id), request)
        return reply


def _changes(form: "ModelForm[User]") -> dict[str, list[Any]]:
    """Return what the form changed, before and after."""
    before = {name: _told(form.initial.get(name)) for name in form.changed_data}
    after = {name: _told(form.cleaned_data[name]) for name in form.changed_data}
    return events.changes(before, after)


def _told(value: Any) -> Any:
    """Return a field's value; granted permissions by their codes."""
    many = isinstance(value, QuerySet | list)
    return sorted(one.codename for one in value) if many else value


def password_changed(user: User, request: HttpRequest) -> None:
    """Finish a change of password that one of Django's forms has saved."""
    actor = actor_of(caller_of_request(request))
    people.standing_changed(user, actor=actor, changed=["password"], created=False)


@transaction.atomic
def change_own_password(request: HttpRequest) -> HttpResponse:
    """Django's page for one's own password; mounted over ``admin/password_change/``."""
    if request.method == "POST" and isinstance(request.user, User):
        # Whoever found the browser open guesses no more often than at the door.
        try:
            guards.person_with(request.user.username, request.POST.get("old_password", ""))
        except WrongPassword:
            pass  # counted; the form says it
        except LockedOut as error:
            messages.error(request, error.message)
            return HttpResponseRedirect(reverse("admin:password_change"))
    reply: HttpResponse = admin.site.password_change(request)
    # Who is not signed in is on the way to the sign-in page, which is no change of password.
    is_changed = request.method == "POST" and isinstance(reply, HttpResponseRedirect)
    if is_changed and isinstance(request.user, User):
        password_changed(request.user, request)
    return reply
