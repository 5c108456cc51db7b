"""The page on which somebody makes an account; outside the admin, which she cannot enter yet."""

from http import HTTPStatus

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from apps.accounts.services import invitations, throttles
from apps.accounts.services.registration import Newcomer, register
from apps.core.errors import PlatformError

MOST_TEXT = 100


class RegisterForm(forms.Form):
    """What somebody says who makes an account."""

    username = forms.CharField(max_length=150)
    email = forms.EmailField(max_length=254)
    first_name = forms.CharField(max_length=150, required=False)
    last_name = forms.CharField(max_length=150, required=False)
    password = forms.CharField(max_length=1024, strip=False, widget=forms.PasswordInput)
    invitation = forms.CharField(max_length=MOST_TEXT, required=False, widget=forms.HiddenInput)


@never_cache
@require_http_methods(["GET", "POST"])
def register_page(request: HttpRequest) -> HttpResponse:
    """Draw the form, or make the account and lead to the sign-in page."""
    if not invitations.is_on():
        return _closed(request, "Nobody registers here. Ask a platform admin for a sign-in.")
    if request.method == "POST":
        return _register(request)
    text = request.GET.get("invitation", "")[:MOST_TEXT]
    found = invitations.found(text) if text else None
    if text and found is None:
        return _closed(request, invitations.refused().message)
    if found is None and settings.REGISTRATION != "open":
        return _closed(request, "An account is made with an invitation. Ask a maintainer for one.")
    form = RegisterForm(initial={"invitation": text, "email": found.email if found else ""})
    return render(request, "accounts/register.html", {"form": form, "invitation": found})


def _register(request: HttpRequest) -> HttpResponse:
    form, status = RegisterForm(request.POST), HTTPStatus.OK
    try:
        throttles.throttle_registration()
        if form.is_valid():
            made = register(Newcomer(**form.cleaned_data))
            messages.success(request, f"Your account {made.user.username} is made. Sign in now.")
            return HttpResponseRedirect(reverse("admin:login"))
    except PlatformError as error:
        status = error.status
        _say(form, error)
    text = request.POST.get("invitation", "")[:MOST_TEXT]
    context = {"form": form, "invitation": invitations.found(text) if text else None}
    return render(request, "accounts/register.html", context, status=status)


def _say(form: RegisterForm, error: PlatformError) -> None:
    """Say a refusal at the fields that it is about."""
    form.full_clean()  # nothing was looked at yet when the door is throttled
    for one in error.problems:
        name = one.pointer.removeprefix("/")
        visible = name in form.fields and name != "invitation"
        form.add_error(name if visible else None, one.detail)
    if not error.problems:
        form.add_error(None, error.message)


def _closed(request: HttpRequest, said: str) -> HttpResponse:
    return render(
        request, "accounts/no_registration.html", {"said": said}, status=HTTPStatus.FORBIDDEN
    )
