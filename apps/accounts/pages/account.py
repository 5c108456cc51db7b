"""*Your account*: who I am here, what I may use up, and where I am signed in."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from apps.accounts.models import User
from apps.accounts.selectors import actor_of_user
from apps.accounts.services import browsers, guards, people
from apps.core.errors import FieldProblem, Invalid, NotAuthenticated, PlatformError, WrongPassword


class AccountForm(forms.Form):
    """My names and my email address."""

    first_name = forms.CharField(max_length=150, required=False)
    last_name = forms.CharField(max_length=150, required=False)
    email = forms.EmailField(max_length=254, required=False)
    current_password = forms.CharField(
        max_length=1024, required=False, strip=False, widget=forms.PasswordInput
    )


@never_cache
@require_http_methods(["GET", "POST"])
def account(request: HttpRequest) -> HttpResponse:
    """Draw the page, or change names and email address."""
    user = _person(request)
    form = AccountForm(request.POST) if request.method == "POST" else AccountForm(_said_of(user))
    if request.method == "POST" and form.is_valid():
        try:
            _change(user, form.cleaned_data)
            messages.success(request, "Your account is changed.")
            return HttpResponseRedirect(reverse("accounts-pages:account"))
        except PlatformError as error:
            _say(form, error)
    return TemplateResponse(request, "accounts/account.html", _context(request, user, form))


@never_cache
@require_POST
def end_others(request: HttpRequest) -> HttpResponse:
    """Sign me out everywhere but in this browser."""
    user = _person(request)
    this = request.session.session_key
    browsers.end_others(user, this=this, actor=actor_of_user(user))
    messages.success(request, "You are signed out everywhere else.")
    return HttpResponseRedirect(reverse("accounts-pages:account"))


def _person(request: HttpRequest) -> User:
    if not isinstance(request.user, User):
        raise NotAuthenticated("Sign in first.")
    return User.objects.select_related("plan").get(pk=request.user.pk)


def _said_of(user: User) -> dict[str, str]:
    return {"first_name": user.first_name, "last_name": user.last_name, "email": user.email}


@transaction.atomic
def _rename(user: User, wish: dict[str, str]) -> None:
    actor = actor_of_user(user)
    names = {"first_name": wish["first_name"], "last_name": wish["last_name"]}
    if names != {"first_name": user.first_name, "last_name": user.last_name}:
        people.change_names(user, **names, actor=actor)
    if wish["email"] != user.email:
        people.change_email(user, email=wish["email"], actor=actor)


def _change(user: User, wish: dict[str, str]) -> None:
    """Change what differs; another address opens the account, so the password is asked for."""
    if wish["email"] != user.email and user.has_usable_password():
        try:
            guards.person_with(user.username, wish["current_password"])
        except WrongPassword as error:
            problem = FieldProblem("/current_password", "This is not your password.")
            raise Invalid("Nothing was changed.").at([problem]) from error
    _rename(user, wish)


def _say(form: AccountForm, error: PlatformError) -> None:
    """Say a refusal at the field that it is about."""
    for one in error.problems:
        name = one.pointer.removeprefix("/")
        form.add_error(name if name in form.fields else None, one.detail)
    if not error.problems:
        form.add_error(None, error.message)


def _context(request: HttpRequest, user: User, form: AccountForm) -> dict[str, Any]:
    return {
        **admin.site.each_context(request),
        "title": "Your account",
        "person": user,
        "form": form,
        "memberships": user.memberships.select_related("team").order_by("team__name"),
        "browsers": browsers.browsers_of(user, this=request.session.session_key),
        "programs": browsers.programs_of(user),
    }
