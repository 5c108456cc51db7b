"""The one backend that Django asks about a password, so that no form passes the guard by."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from apps.accounts.models import User
from apps.accounts.services import guards, throttles
from apps.core.errors import TooMany, WrongPassword


class GuardedBackend(ModelBackend):
    """Name or email address and password, with failures counted and too many locked out."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **credentials: Any,
    ) -> User | None:
        """Return the user, or None when the words are wrong.

        Raises:
            ValidationError: Locked out, or too often. Forms ask from their ``clean``, and say it.
        """
        name = username or credentials.get("email") or ""
        if not name or password is None:
            return None
        try:
            throttles.throttle_sign_in()
            return guards.person_with(name, password)
        except WrongPassword:
            return None
        except TooMany as error:
            raise ValidationError(error.message, code=error.code) from error
