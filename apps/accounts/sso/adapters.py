"""What allauth asks us: who may come in, where secrets lie, how the provider is reached.

allauth keeps the stages of a sign-in and its protocols. Who a person is, and what counts, is
decided in ``services``; nobody is made here, and nobody signs up by allauth's own pages.
"""

from typing import Any, NoReturn

import requests
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.authentication import get_authentication_records
from allauth.account.internal.stagekit import clear_login
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp, SocialLogin
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.http import url_has_allowed_host_and_scheme

from apps.accounts.models import User
from apps.accounts.services import mfa, single_sign_on
from apps.accounts.services.single_sign_on import PROVIDER, SignInRefused, Visitor
from apps.accounts.sso.outbound import OutboundSession
from apps.accounts.sso.provider import SsoProvider
from apps.core import context, events
from apps.core.errors import PlatformError
from apps.core.events import Actor

# What the password was when a sign-in began, as Django's sessions keep it.
_BEGUN_WITH = "mlp_begun_with"


def refused(request: HttpRequest, words: str, *, status: int = 403) -> HttpResponse:
    """Return the page that says why a sign-in ends here."""
    page = TemplateResponse(request, "account/refused.html", {"words": words}, status=status)
    return page.render()


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Stages of a sign-in."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """Count by the address that the rest of the platform believes, behind proxies too."""
        return context.current().address or "unknown"

    def is_safe_url(self, url: str) -> bool:
        """Lead nowhere but to pages of this host."""
        request = self.request
        return url_has_allowed_host_and_scheme(
            url, {request.get_host()}, require_https=request.is_secure()
        )

    def add_message(self, *args: Any, **kwargs: Any) -> None:
        """Say nothing after a sign-in; what allauth says of factors stands on their page."""

    def send_notification_mail(self, *args: Any, **kwargs: Any) -> None:
        """News go through ``monitoring``, from events."""

    def pre_login(
        self, request: HttpRequest, user: AbstractBaseUser, **kwargs: Any
    ) -> HttpResponse | None:
        """Refuse who may not use the admin, by whichever way they came."""
        assert isinstance(user, User)
        words = _no_entry(user, _methods(request, user))
        if not words:
            request.session[_BEGUN_WITH] = user.get_session_auth_hash()
            return None
        clear_login(request)
        events.record(
            "user.sign_in_failed", actor=Actor.system(), target=user, method=_said(request)
        )
        return refused(request, words)

    def login(self, request: HttpRequest, user: AbstractBaseUser) -> None:
        """Sign in, unless the password was changed between the first step and the last."""
        assert isinstance(user, User)
        if request.session.pop(_BEGUN_WITH, None) != user.get_session_auth_hash():
            clear_login(request)
            words = "Your password was changed meanwhile. Sign in with the new one."
            raise ImmediateHttpResponse(refused(request, words))
        super().login(request, user)


def _no_entry(user: User, methods: set[str]) -> str:
    if not user.is_active:
        return "Your sign-in is disabled. Ask a platform admin to enable it."
    if not user.is_staff:
        return (
            f"You are known here as {user.username}, and these pages are not open to you yet. Ask "
            "a platform admin to tick “Uses these pages” under People, and to put you into a team."
        )
    if settings.OIDC_REQUIRED and not user.is_superuser and "socialaccount" not in methods:
        return f"Everybody signs in with {settings.OIDC_NAME} here."
    return ""


def _methods(request: HttpRequest, user: User) -> set[str]:
    return {str(one.get("method")) for one in get_authentication_records(request, user)}


def _said(request: HttpRequest) -> str:
    return "oidc" if "/sso/" in request.path else "browser"


class SocialAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """The one provider, set by the operator."""

    def get_provider(
        self, request: HttpRequest, provider: str, client_id: str | None = None
    ) -> SsoProvider:
        if not settings.OIDC_ISSUER or provider not in {PROVIDER, SsoProvider.id}:
            raise Http404("No provider is set.")
        return SsoProvider(request, app=_app())

    def list_apps(
        self, request: HttpRequest, provider: str | None = None, client_id: str | None = None
    ) -> list[SocialApp]:
        """Return what the settings say; rows that somebody may write are not looked at."""
        return [_app()] if settings.OIDC_ISSUER else []

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        return False

    def get_requests_session(self) -> requests.Session:
        return OutboundSession()

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Find, connect or make the person; afterwards allauth finds them connected."""
        visitor: Visitor = sociallogin.visitor
        if sociallogin.state.get("nonce") != sociallogin.nonce or not sociallogin.nonce:
            self._refuse(request, "The provider's answer is not to this question. Start again.")
        try:
            sociallogin.user = single_sign_on.person_for(visitor)
        except PlatformError as error:
            self._refuse_known(sociallogin, request, error)

    def _refuse_known(
        self, sociallogin: SocialLogin, request: HttpRequest, error: PlatformError
    ) -> NoReturn:
        known = sociallogin.user
        if isinstance(known, User) and known.pk and isinstance(error, SignInRefused):
            events.record("user.sign_in_failed", actor=Actor.system(), target=known, method="oidc")
        self._refuse(request, error.message)

    def _refuse(self, request: HttpRequest, words: str) -> NoReturn:
        raise ImmediateHttpResponse(refused(request, words))

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: Any = None,
        exception: Exception | None = None,
        extra_context: Any = None,
    ) -> None:
        """Say in words that it did not work; what the provider said stays in the log."""
        raise ImmediateHttpResponse(
            refused(
                request,
                f"{settings.OIDC_NAME} did not sign you in, or its answer came too late or twice. "
                "Start again; if it goes on, tell your operator.",
                status=401,
            )
        )


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth ships no types
    """Secrets of second factors."""

    error_messages = DefaultMFAAdapter.error_messages | {
        "incorrect_code": "This is not a code of yours now. Wait for the next one and try again.",
    }

    def get_totp_label(self, user: AbstractBaseUser) -> str:
        return str(user.get_username())

    def get_totp_issuer(self) -> str:
        return f"mlplatform {settings.INSTALLATION}".strip()

    def encrypt(self, text: str) -> str:
        return mfa.seal(text)

    def decrypt(self, encrypted_text: str) -> str:
        return mfa.unseal(encrypted_text)

    def is_mfa_enabled(self, user: AbstractBaseUser, types: Any = None) -> bool:
        enabled: bool = settings.MFA != mfa.OFF and super().is_mfa_enabled(user, types)
        return enabled

    def generate_authenticator_name(
        self,
        user: AbstractBaseUser,
        type: Authenticator.Type,  # noqa: A002 - allauth's name
    ) -> str:
        count = Authenticator.objects.filter(user_id=user.pk, type=type).count()
        return f"Passkey {count + 1}"


def _app() -> SocialApp:
    return SocialApp(
        provider=SsoProvider.id,
        provider_id=PROVIDER,
        name=settings.OIDC_NAME,
        client_id=settings.OIDC_CLIENT_ID,
        secret=settings.OIDC_CLIENT_SECRET,
        settings={"server_url": settings.OIDC_ISSUER, "oauth_pkce_enabled": True},
    )
