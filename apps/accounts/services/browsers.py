"""Browsers in which somebody is signed in: what is kept of each, when it ends, ending the others.

Django keeps a session under its key alone, so those of one person are found by reading the living
ones; that happens on one page, and when somebody ends sessions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from apps.accounts.models import RefreshToken, User
from apps.accounts.selectors import actor_of_user
from apps.accounts.services import guards, people
from apps.core import context, events
from apps.core.events import Actor

SIGNED_IN_AT, SEEN_AT = "mlp_signed_in_at", "mlp_seen_at"
ADDRESS, AGENT = "mlp_address", "mlp_agent"
# What single sign-on and the second factor note of a sign-in; absent without them.
_HOW = "account_authentication_methods"
_METHODS = {"socialaccount": "oidc"}
# A session says no more often than this that it is in use.
NOTED_EVERY = timedelta(minutes=1)
MOST_AGENT = 200
MOST_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Browser:
    """A browser in which somebody is signed in."""

    address: str
    agent: str
    since: datetime | None
    seen: datetime | None
    is_this: bool


def signed_in(sender: Any, request: HttpRequest, user: User, **_: Any) -> None:
    """Note what a new session is known by, and write the event; Django's signal brings us here."""
    now = timezone.now().timestamp()
    session = request.session
    session[SIGNED_IN_AT] = session[SEEN_AT] = now
    session[ADDRESS] = context.current().address or ""
    session[AGENT] = request.META.get("HTTP_USER_AGENT", "")[:MOST_AGENT]
    guards.succeeded(user)
    method, second = _how(session)
    events.record(
        "user.signed_in",
        actor=actor_of_user(user),
        target=user,
        method=method,
        second_factor=second,
    )


def signed_out(sender: Any, request: HttpRequest, user: User | None, **_: Any) -> None:
    """Write the event; Django's signal brings us here."""
    if user is not None:
        why = getattr(request, "session_end", "asked")
        events.record(
            "user.signed_out", actor=actor_of_user(user), target=user, method="browser", why=why
        )


def end_of(session: SessionBase, now: datetime) -> str:
    """Return why a session is over: ``age`` or ``idle``; an empty text while it is not."""
    since, seen = session.get(SIGNED_IN_AT), session.get(SEEN_AT)
    if not isinstance(since, int | float) or not isinstance(seen, int | float):
        return ""  # from before both were kept: its cookie's age ends it
    if now.timestamp() - since >= settings.SESSION_COOKIE_AGE:
        return "age"
    idle = settings.SESSION_IDLE_MINUTES * 60
    return "idle" if idle and now.timestamp() - seen >= idle else ""


def seen(session: SessionBase, now: datetime) -> None:
    """Note that a session is in use, at most once a minute; its end by age stays where it is."""
    last = session.get(SEEN_AT)
    if isinstance(last, int | float) and now.timestamp() - last < NOTED_EVERY.total_seconds():
        return
    session[SEEN_AT] = now.timestamp()
    since = session.setdefault(SIGNED_IN_AT, now.timestamp())
    left = settings.SESSION_COOKIE_AGE - (now.timestamp() - since)
    session.set_expiry(max(1, int(left)))


def browsers_of(user: User, *, this: str | None) -> list[Browser]:
    """Return where somebody is signed in, the newest first; ``this`` is the session that asks.

    A change of password ends sessions without removing them; those are not told.
    """
    good = {user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()}
    found = [
        Browser(
            str(kept.get(ADDRESS, "")),
            str(kept.get(AGENT, "")),
            _time(kept.get(SIGNED_IN_AT)),
            _time(kept.get(SEEN_AT)),
            key == this,
        )
        for key, kept in _sessions_of(user)
        if kept.get(HASH_SESSION_KEY) in good
    ]
    old = datetime(1970, 1, 1, tzinfo=UTC)
    found.sort(key=lambda one: (one.is_this, one.seen or old), reverse=True)
    return found[:MOST_SHOWN]


def programs_of(user: User) -> list[RefreshToken]:
    """Return the newest refresh token of each sign-in by the API that can go on."""
    living = RefreshToken.objects.filter(
        user=user, used_at__isnull=True, revoked_at__isnull=True, expires__gt=timezone.now()
    )
    return list(living.order_by("-expires")[:MOST_SHOWN])


@transaction.atomic
def end_others(user: User, *, this: str | None, actor: Actor) -> int:
    """Sign somebody out everywhere but here: browsers and tokens; return how many browsers."""
    people.lock(user)
    people.end_tokens(user)
    ended = _end_sessions(user, but=this)
    events.record("user.sessions_ended", actor=actor, target=user, browsers=ended)
    people.publish(user)
    return ended


def _end_sessions(user: User, *, but: str | None) -> int:
    store = import_module(settings.SESSION_ENGINE).SessionStore
    keys = [key for key, _ in _sessions_of(user) if key != but]
    for key in keys:
        store(key).delete(key)
    return len(keys)


def _sessions_of(user: User) -> Iterator[tuple[str, dict[str, Any]]]:
    living = Session.objects.filter(expire_date__gt=timezone.now())
    for one in living.iterator(chunk_size=500):
        kept = one.get_decoded()
        if kept.get(SESSION_KEY) == str(user.pk):
            yield one.session_key, kept


def _how(session: SessionBase) -> tuple[str, bool]:
    """Say by what somebody signed in, and whether by a second factor besides."""
    told = session.get(_HOW)
    steps = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    names = [str(one.get("method", "")) for one in steps]
    first = next((one for one in names if one != "mfa"), "passkey" if names else "password")
    return _METHODS.get(first, first), "mfa" in names and first != "passkey"


def _time(value: Any) -> datetime | None:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else None
