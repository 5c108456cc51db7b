"""OpenID Connect as we want it: PKCE, a nonce, and an ID token whose signature is checked."""

import secrets
from typing import Any

import jwt
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.models import SocialApp, SocialLogin, SocialToken
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from allauth.utils import build_absolute_uri
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from apps.accounts.services.single_sign_on import Visitor, uid_of

# Signatures that only the provider can make; a shared secret, or none, is no proof here.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
LEEWAY_SECONDS = 60


class SsoOAuth2Adapter(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]  # allauth ships no types
    """The exchange of a code for what the provider says of somebody."""

    def complete_login(
        self, request: HttpRequest, app: SocialApp, token: SocialToken, **kwargs: Any
    ) -> SocialLogin:
        """Return who signs in, from the ID token and what the provider tells besides.

        Raises:
            OAuth2Error: There is no ID token, it is not good, or the two speak of two people.
        """
        text = kwargs["response"].get("id_token")
        if not text:
            raise OAuth2Error("no id_token")
        claims = self._claims(app, text)
        told = self._fetch_user_info(token.token)
        if str(told.get("sub")) != str(claims.get("sub")):
            raise OAuth2Error("the subjects of id_token and userinfo differ")
        login = self.get_provider().sociallogin_from_response(request, {**claims, **told})
        login.visitor = _visitor(claims, told)
        login.nonce = claims.get("nonce")
        return login

    def _claims(self, app: SocialApp, text: str) -> dict[str, Any]:
        """Read an ID token; its signature is checked although it came from the provider itself."""
        if self.openid_config["issuer"].rstrip("/") != settings.OIDC_ISSUER.rstrip("/"):
            raise OAuth2Error("the provider names itself otherwise than MLP_OIDC_ISSUER")
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                _key_of(text, self._keys()),
                algorithms=ALGORITHMS,
                issuer=self.openid_config["issuer"],
                audience=app.client_id,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "aud", "exp", "iat", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise OAuth2Error("the id_token is not good") from error
        return claims

    def _keys(self) -> jwt.PyJWKSet:
        with get_adapter().get_requests_session() as session:
            reply = session.get(self.openid_config["jwks_uri"])
            reply.raise_for_status()
        return jwt.PyJWKSet.from_dict(reply.json())

    def get_callback_url(self, request: HttpRequest, app: SocialApp) -> str:
        url: str = build_absolute_uri(request, reverse("sso_callback"))
        return url


class SsoProvider(OpenIDConnectProvider):  # type: ignore[misc]  # allauth ships no types
    """The provider of the settings."""

    oauth2_adapter_class = SsoOAuth2Adapter

    def begin(self, request: HttpRequest, next_url: str) -> HttpResponse:
        """Send the browser to the provider; nothing of the request says what is asked there."""
        nonce = secrets.token_urlsafe(32)
        sent: HttpResponse = self.redirect(
            request, "login", next_url=next_url, auth_params={"nonce": nonce}, nonce=nonce
        )
        return sent

    def extract_uid(self, data: dict[str, Any]) -> str:
        return uid_of(settings.OIDC_ISSUER, str(data["sub"]))

    def extract_extra_data(self, data: dict[str, Any]) -> dict[str, Any]:
        """Keep nothing of what the provider tells; the person's row has what we need."""
        return {}


def _key_of(text: str, keys: jwt.PyJWKSet) -> jwt.PyJWK:
    """Return the key that a token names; it may name none where the provider has one only."""
    name = jwt.get_unverified_header(text).get("kid")
    if name is None and len(keys.keys) == 1:
        return keys.keys[0]
    return keys[str(name)]


def _visitor(claims: dict[str, Any], told: dict[str, Any]) -> Visitor:
    said = {**claims, **told}
    email = str(said.get("email") or "")
    # Each answer vouches for the address that it names itself, and for no other.
    verdicts = [one.get("email_verified") for one in (told, claims) if one.get("email") == email]
    verdict = next((one for one in verdicts if one is not None), False)
    return Visitor(
        issuer=settings.OIDC_ISSUER,
        subject=str(claims["sub"]),
        email=email,
        is_verified=verdict is True,
        name=str(said.get("preferred_username") or ""),
        first_name=str(said.get("given_name") or ""),
        last_name=str(said.get("family_name") or ""),
    )
