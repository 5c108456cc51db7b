"""Forms of the second factor; what a code is worth is judged in ``services.mfa``."""

from typing import Any

from allauth.mfa.base.forms import AuthenticateForm, ReauthenticateForm
from django import forms

from apps.accounts.services import mfa
from apps.core.errors import PlatformError


class _Judged(forms.Form):
    """Takes a code once, and counts wrong ones with wrong passwords."""

    user: Any
    authenticator: Any

    def clean_code(self) -> str:
        code = str(self.cleaned_data["code"])
        try:
            self.authenticator = mfa.use_code(self.user, code)
        except PlatformError as error:
            words = "This is not a code of yours now." if error.status == 401 else error.message
            raise forms.ValidationError(words, code=error.code) from error
        return code


class CodeForm(_Judged, AuthenticateForm):  # type: ignore[misc]  # allauth ships no types
    """The second step of a sign-in."""


class ConfirmCodeForm(_Judged, ReauthenticateForm):  # type: ignore[misc]  # allauth ships no types
    """Proves again who sits there, before a factor changes."""
