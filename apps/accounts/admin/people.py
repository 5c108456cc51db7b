"""The screen of users."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from apps.accounts.admin.door import AccountsAdmin, caller_of_request
from apps.accounts.models import User
from apps.accounts.policies import UPLOAD_CODE
from apps.accounts.selectors import actor_of
from apps.accounts.services import people

if TYPE_CHECKING:
    from django.db.models import ManyToManyField
    from django.forms import ModelForm, ModelMultipleChoiceField

# What a role is to us, Django's groups are not.
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, AccountsAdmin):  # type: ignore[type-arg]  # not generic at run time
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_superuser", "last_login")
    list_filter = ("is_active", "is_superuser")
    search_fields = ("username", "email", "first_name", "last_name")
    ordering = ("username",)
    readonly_fields = ("last_login", "date_joined")
    filter_horizontal = ()
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
