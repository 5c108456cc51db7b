"""The environment, read once; secrets also from the file that ``<NAME>_FILE`` names.

A wrong value stops the start with the variable's name.
"""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parents[2]

if os.environ.get("MLP_ENV_FILE", "1") != "0":
    environ.Env.read_env(BASE_DIR / ".env")

_env = environ.Env()
# `manage.py` with one of these connects as the owner of the tables, when that is another role.
OWNER_COMMANDS = ("migrate", "database_roles", "purge")
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:]+\]|[a-z0-9-]+(\.[a-z0-9-]+)*)(:[0-9]{1,5})?")
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


def choice(name: str, default: str, among: tuple[str, ...]) -> str:
    """Read one of a few words."""

    def parse(raw: str) -> str:
        if raw in among:
            return raw
        raise ValueError(f"write one of {', '.join(among)}")

    return _read(name, default, parse)


def rate(name: str, default: str) -> str:
    """Read how many in which time, as 20/m; ``off`` is no limit, returned as an empty text."""

    def parse(raw: str) -> str:
        if raw == "off":
            return ""
        if not re.fullmatch(r"[1-9][0-9]*/[smhd]", raw):
            raise ValueError("write a number and a time, as 20/m, or off")
        return raw

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


def origins(name: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """Check a list of origins: each a scheme and a host and nothing more, never a pattern."""
    for one in given:
        if not _ORIGIN.fullmatch(one):
            raise ImproperlyConfigured(
                f"{name}: {one!r} is no origin; write https://app.example.org, without a path, "
                "a slash or an asterisk"
            )
    return given


def sessions(name: str, word: str, redis_url: str) -> str:
    """Return the place where sessions are kept, by its word."""
    if word == "database":
        return "django.contrib.sessions.backends.db"
    if word != "cached":
        raise ImproperlyConfigured(f"{name}={word!r} cannot be read: write database or cached")
    if not redis_url:
        raise ImproperlyConfigured(
            f"{name}=cached needs REDIS_URL: a cache of one process would go on knowing a session "
            "that another one has ended"
        )
    return "django.contrib.sessions.backends.cached_db"


def is_owner_command() -> bool:
    """Whether this process is ``manage.py`` with a command of the tables' owner."""
    door, *words = sys.argv or [""]
    return Path(door).name == "manage.py" and words[:1] != [] and words[0] in OWNER_COMMANDS


def database(url: str) -> dict[str, object]:
    """Parse a database URL into Django's form."""
    try:
        return dict(_env.db_url_config(url))
    except (ValueError, environ.ImproperlyConfigured):
        # What its reader says may quote a part of the password.
        raise ImproperlyConfigured(
            "DATABASE_URL cannot be read; write postgres://user:password@host:5432/name, with "
            "signs of the password that mean something in an address written as %2F"
        ) from None
