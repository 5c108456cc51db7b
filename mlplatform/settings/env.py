"""The environment, read once; secrets also from the file that ``<NAME>_FILE`` names.

A wrong value stops the start with the variable's name.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parents[2]

if os.environ.get("MLP_ENV_FILE", "1") != "0":
    environ.Env.read_env(BASE_DIR / ".env")

_env = environ.Env()
T = TypeVar("T")


def _read(name: str, default: T, parse: Callable[[str], T]) -> T:
    raw = os.environ.get(name)
    if raw is None or raw == "":
        return default
    try:
        return parse(raw)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}={raw!r} cannot be read: {error}") from error


def text(name: str, default: str = "") -> str:
    """Read a text."""
    return _read(name, default, str)


def integer(name: str, default: int) -> int:
    """Read a whole number."""
    return _read(name, default, int)


def number(name: str, default: float) -> float:
    """Read a number."""
    return _read(name, default, float)


def switch(name: str, *, default: bool) -> bool:
    """Read 1/0, true/false, yes/no, on/off."""

    def parse(raw: str) -> bool:
        word = raw.strip().lower()
        if word in {"1", "true", "yes", "on"}:
            return True
        if word in {"0", "false", "no", "off"}:
            return False
        raise ValueError("write 1 or 0")

    return _read(name, default, parse)


def words(name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Read a comma-separated list."""
    return _read(
        name, default, lambda raw: tuple(one.strip() for one in raw.split(",") if one.strip())
    )


def integers(name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Read a comma-separated list of whole numbers."""
    return _read(
        name, default, lambda raw: tuple(int(one) for one in raw.split(",") if one.strip())
    )


def secret(name: str, default: str = "") -> str:
    """Read a secret from ``name``, else from the file that ``<name>_FILE`` names."""
    file = os.environ.get(f"{name}_FILE", "")
    if file:
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE={file!r} cannot be read: {error}") from error
    return text(name, default)


def email(name: str, url: str) -> dict[str, object]:
    """Parse a mail server's URL into Django's settings; without one nothing leaves."""
    if not url:
        return {"EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
    try:
        return dict(environ.Env.email_url_config(url))
    except (ValueError, KeyError, environ.ImproperlyConfigured):
        # The URL holds a password, so neither it nor what its reader said is repeated.
        raise ImproperlyConfigured(
            f"{name} cannot be read; write smtp+tls://user:password@host:587"
        ) from None


def database(url: str) -> dict[str, object]:
    """Parse a database URL into Django's form."""
    try:
        return dict(_env.db_url_config(url))
    except (ValueError, environ.ImproperlyConfigured) as error:
        raise ImproperlyConfigured(f"DATABASE_URL cannot be read: {error}") from error
