"""Pages of signing in: the first step, the provider and back, and the second factor's pages."""

import functools
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import requests
from allauth.account.internal.flows.login import perform_password_login
from allauth.account.models import Login
from allauth.mfa.webauthn import views as passkeys
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET
from unfold.forms import AuthenticationForm

from apps.accounts.models import User
from apps.accounts.services import mfa, throttles
from apps.accounts.services.single_sign_on import PROVIDER
from apps.accounts.sso.adapters import refused
from apps.accounts.sso.provider import SsoOAuth2Adapter, SsoProvider
from apps.core.errors import PlatformError

LOG = logging.getLogger(__name__)
View = Callable[..., HttpResponseBase]


@method_decorator(never_cache, name="dispatch")
class SignInView(LoginView):
    """``admin/login/``: name and password; further steps are allauth's."""

    template_name = "admin/login.html"
    authentication_form = AuthenticationForm

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if admin.site.has_permission(request):
            return HttpResponseRedirect(self.get_success_url())
        return super().get(request, *args, **kwargs)

    def form_valid(self, form: Any) -> HttpResponse:
        user: User = form.get_user()
        login = Login(user=user, redirect_url=self.get_success_url())
        reply: HttpResponse = perform_password_login(
            self.request, {"username": user.username}, login
        )
        return reply

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        goal = self.get_redirect_url()
        return {
            **super().get_context_data(**kwargs),
            **admin.site.each_context(self.request),
            "title": "Sign in",
            "subtitle": None,
            "app_path": self.request.get_full_path(),
            "username": self.request.user.get_username(),
            "sso_name": settings.OIDC_NAME if settings.OIDC_ISSUER else "",
            "sso_url": f"{reverse('sso_begin')}?{urlencode({'next': goal})}"
            if goal
            else reverse("sso_begin"),
            "takes_passkeys": settings.MFA != mfa.OFF,
            "goal": goal,
        }


def account_login(request: HttpRequest) -> HttpResponse:
    """Where allauth sends who is not signed in: the admin's own page."""
    asked = request.META.get("QUERY_STRING", "")
    return HttpResponseRedirect(reverse("admin:login") + (f"?{asked}" if asked else ""))


@require_GET
@never_cache
def sso_begin(request: HttpRequest) -> HttpResponse:
    """Go to the provider."""
    provider: SsoProvider = get_adapter().get_provider(request, PROVIDER)
    goal = request.GET.get("next", "")
    if not url_has_allowed_host_and_scheme(goal, {request.get_host()}):
        goal = reverse("admin:index")
    try:
        throttles.throttle_sign_in()
        return provider.begin(request, goal)
    except PlatformError as error:
        return refused(request, error.message, status=error.status)
    except (requests.RequestException, KeyError, ValueError):
        LOG.warning("the provider cannot be asked", exc_info=True)
        words = f"{settings.OIDC_NAME} does not answer now. Try again in a minute."
        return refused(request, words, status=HTTPStatus.BAD_GATEWAY)


@require_GET
@never_cache
def sso_callback(request: HttpRequest) -> HttpResponse:
    """Come back from the provider."""
    if not settings.OIDC_ISSUER:
        raise Http404
    view = OAuth2CallbackView.adapter_view(SsoOAuth2Adapter(request, PROVIDER))
    try:
        reply: HttpResponse = view(request)
    except (KeyError, ValueError):  # an answer without what the standard demands
        LOG.warning("the provider gave an answer that cannot be read", exc_info=True)
        words = f"{settings.OIDC_NAME} gave an answer that cannot be read. Tell your operator."
        return refused(request, words, status=HTTPStatus.BAD_GATEWAY)
    return reply


def passkey_sign_in(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
    """Ask for a passkey, or take it: an address may do so as often as it may send passwords."""
    try:
        throttles.throttle_sign_in()
    except PlatformError as error:
        return refused(request, error.message, status=error.status)
    reply: HttpResponseBase = passkeys.login_webauthn(request, *args, **kwargs)
    return reply


def factor_page(view: View) -> View:
    """Make one of allauth's pages ours: gone when switched off, with its events in one piece."""

    @functools.wraps(view)
    def page(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if settings.MFA == mfa.OFF:
            raise Http404
        with transaction.atomic():
            reply = view(request, *args, **kwargs)
            if isinstance(reply, TemplateResponse):
                must = isinstance(request.user, User) and mfa.is_wanted_of(request.user)
                reply.context_data = {**(reply.context_data or {}), "must_enrol": must}
                reply.render()
        return reply

    return page
