"""The screen of users."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.html import format_html
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from apps.accounts.admin.door import AccountsAdmin, caller_of_request
from apps.accounts.admin.filters import ChipsFilter
from apps.accounts.models import ApiKey, Membership, User
from apps.accounts.policies import UPLOAD_CODE
from apps.accounts.selectors import actor_of, key_state
from apps.accounts.services import people
from apps.core import words
from apps.core.admin import is_platform_admin
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
class UserAdmin(DjangoUserAdmin, AccountsAdmin):  # type: ignore[type-arg,misc]  # no types of its own
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    change_list_template = "admin/accounts/list.html"
    change_form_outer_after_template = "admin/accounts/user/beside.html"
    list_display = ("person", "teams_and_roles", "standing", "may_use_admin", "seen")
    list_filter = (StandingFilter,)
    list_filter_sheet = True
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
        events = Event.objects.filter(
            target_kind=User._meta.label_lower, target_id=str(found.pk)
        ).exclude(verb="user.refreshed")
        newest = ApiKey.objects.filter(owner=found).order_by("-created")[:SHOWN_KEYS]
        return {
            "memberships": found.memberships.all(),
            "keys": [(key, key_state(key, timezone.now())) for key in newest],
            "events": events.order_by("-id")[:HISTORY],
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
        """Offer the one permission that is granted per person."""
        if db_field.name == "user_permissions":
            app, codename = UPLOAD_CODE.split(".")
            kwargs["queryset"] = Permission.objects.filter(
                content_type__app_label=app, codename=codename
            )
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def save_related(
        self, request: HttpRequest, form: "ModelForm[User]", formsets: Any, change: bool
    ) -> None:
        super().save_related(request, form, formsets, change)
        people.standing_changed(
            form.instance,
            actor=actor_of(caller_of_request(request)),
            changed=sorted(set(form.changed_data) - {"password1", "password2"}),
            created=not change,
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


def password_changed(user: User, request: HttpRequest) -> None:
    """Finish a change of password that one of Django's forms has saved."""
    actor = actor_of(caller_of_request(request))
    people.standing_changed(user, actor=actor, changed=["password"], created=False)


@transaction.atomic
def change_own_password(request: HttpRequest) -> HttpResponse:
    """Django's page for one's own password; mounted over ``admin/password_change/``."""
    reply: HttpResponse = admin.site.password_change(request)
    if request.method == "POST" and isinstance(reply, HttpResponseRedirect):
        assert isinstance(request.user, User)
        password_changed(request.user, request)
    return reply
