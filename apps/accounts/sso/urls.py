"""Addresses below ``/account/``: of allauth's own only those that are meant to be open."""

from allauth.account import views as account
from allauth.mfa.base import views as base
from allauth.mfa.recovery_codes import views as codes
from allauth.mfa.totp import views as totp
from allauth.mfa.webauthn import views as passkeys
from django.urls import path
from django.views.decorators.http import require_POST

from apps.accounts.sso.views import (
    account_login,
    factor_page,
    passkey_sign_in,
    sso_begin,
    sso_callback,
)

urlpatterns = [
    path("login/", account_login, name="account_login"),
    path("logout/", require_POST(account.logout), name="account_logout"),
    path("reauthenticate/", factor_page(account.reauthenticate), name="account_reauthenticate"),
    path("sso/", sso_begin, name="sso_begin"),
    path("sso/callback/", sso_callback, name="sso_callback"),
    *(
        path(f"2fa/{address}", factor_page(view), name=name)
        for address, view, name in (
            ("", base.index, "mfa_index"),
            ("authenticate/", base.authenticate, "mfa_authenticate"),
            ("reauthenticate/", base.reauthenticate, "mfa_reauthenticate"),
            ("app/", totp.activate_totp, "mfa_activate_totp"),
            ("app/remove/", totp.deactivate_totp, "mfa_deactivate_totp"),
            ("codes/", codes.view_recovery_codes, "mfa_view_recovery_codes"),
            ("codes/new/", codes.generate_recovery_codes, "mfa_generate_recovery_codes"),
            ("passkeys/", passkeys.list_webauthn, "mfa_list_webauthn"),
            ("passkeys/add/", passkeys.add_webauthn, "mfa_add_webauthn"),
            ("passkeys/login/", passkey_sign_in, "mfa_login_webauthn"),
            (
                "passkeys/reauthenticate/",
                passkeys.reauthenticate_webauthn,
                "mfa_reauthenticate_webauthn",
            ),
            ("passkeys/<int:pk>/remove/", passkeys.remove_webauthn, "mfa_remove_webauthn"),
            ("passkeys/<int:pk>/edit/", passkeys.edit_webauthn, "mfa_edit_webauthn"),
        )
    ),
]
