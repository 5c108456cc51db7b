"""What `manage.py check --deploy` says about an installation that others can reach.

Django's own checks look at cookies and TLS; these look at what is ours. Each names the variable
that mends it. They warn, since an operator may have a reason; ``MLP_ALLOWED_HOSTS=*`` is an error.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - its name

Found = Iterator[CheckMessage]


def _sqlite() -> Found:
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        yield Warning(
            "The database is SQLite, which is for one machine and few writers.",
            hint="Set DATABASE_URL=postgres://...",
            id="mlplatform.W001",
        )


def _debug() -> Found:
    if settings.DEBUG:
        yield Warning(
            "Pages of errors show code and settings.",
            hint="Unset MLP_DEBUG.",
            id="mlplatform.W002",
        )


def _hosts() -> Found:
    loose = [one for one in settings.ALLOWED_HOSTS if one == "*" or one.startswith(".")]
    if loose:
        yield Error(
            f"MLP_ALLOWED_HOSTS holds {', '.join(loose)}: names that others own would be believed.",
            hint="Name each host exactly.",
            id="mlplatform.E001",
        )


def _kept_secret() -> Found:
    if settings.IS_SECRET_KEY_KEPT:
        yield Warning(
            "The secret key was made by this machine and lies in its data folder.",
            hint="Set MLP_SECRET_KEY, or MLP_SECRET_KEY_FILE, from a secret store; all processes "
            "need the same one.",
            id="mlplatform.W003",
        )


def _approval() -> Found:
    if not settings.REQUIRE_APPROVAL:
        yield Warning(
            "One person alone can release to production.",
            hint="Unset MLP_REQUIRE_APPROVAL.",
            id="mlplatform.W004",
        )


def _registration() -> Found:
    if settings.REGISTRATION == "open":
        yield Warning(
            "Anybody who reaches the platform can make an account.",
            hint="Set MLP_REGISTRATION to invitation or off.",
            id="mlplatform.W005",
        )


def _docs() -> Found:
    if settings.PUBLIC_DOCS:
        yield Warning(
            "The API's documentation is open to everybody.",
            hint="Unset MLP_PUBLIC_DOCS.",
            id="mlplatform.W006",
        )


def _origins() -> Found:
    plain = [one for one in settings.CORS_ALLOWED_ORIGINS if one.startswith("http://")]
    if plain:
        yield Warning(
            f"MLP_CORS_ORIGINS holds {', '.join(plain)}: who sits on the way speaks as that page.",
            hint="Name origins with https://.",
            id="mlplatform.W007",
        )


CHECKS: tuple[Callable[[], Found], ...] = (
    _sqlite,
    _debug,
    _hosts,
    _kept_secret,
    _approval,
    _registration,
    _docs,
    _origins,
)


@register(Tags.security, deploy=True)
def deployment(**_: Any) -> Iterable[CheckMessage]:
    """Look at what an operator sets."""
    return [found for check in CHECKS for found in check()]
