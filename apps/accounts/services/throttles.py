"""How often one address or person may knock at a door that is dear: sign-in, register, upload.

A second wall in the shared cache (per process without Redis); when the cache does not answer the
doors stay open, since failed sign-ins are counted in the database anyway (``guards``).
"""

import logging

from django.conf import settings
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django_ratelimit.core import get_usage
from redis.exceptions import RedisError

from apps.accounts.limits import neighbourhood
from apps.accounts.models import SignInGuard
from apps.core import context, events
from apps.core.errors import TooMany
from apps.core.events import Actor

LOG = logging.getLogger(__name__)


def throttle_sign_in() -> None:
    """Count a sign-in of the address that the request comes from."""
    _by_address("login", settings.THROTTLE_LOGIN)


def throttle_registration() -> None:
    """Count a registration of the address that the request comes from."""
    _by_address("register", settings.THROTTLE_REGISTER)


def throttle_upload(user_id: int) -> None:
    """Count an upload of a person, and of the address that it comes from."""
    throttled("upload", f"person:{user_id}", settings.THROTTLE_UPLOAD)
    _by_address("upload", settings.THROTTLE_UPLOAD)


def throttled(door: str, subject: str, rate: str) -> None:
    """Count a call at a door; the first one too many of a window is an event.

    Args:
        door: Name of the door; each counts by itself.
        subject: Who calls: ``address:...`` or ``person:...``.
        rate: As ``20/m``; empty is no limit.

    Raises:
        TooMany: The rate is used up; it says when the next window begins.
    """
    if not rate:
        return
    try:
        usage = get_usage(
            None, group=f"mlp.{door}", key=lambda *_: subject, rate=rate, increment=True
        )
    except (RedisError, OSError) as error:
        LOG.warning("the cache that counts calls does not answer: %s", error)
        return
    # A limit of 0 is the library's word for a cache that lost the count.
    if usage is None or not usage["limit"] or not usage["should_limit"]:
        return
    if usage["count"] == usage["limit"] + 1:
        _record(door, subject, rate)
    raise TooMany(
        f"Too many calls to `{door}` (at most {rate}). Try again in {usage['time_left']} s.",
        seconds=usage["time_left"],
    )


def _by_address(door: str, rate: str) -> None:
    address = context.current().address
    if address:
        throttled(door, f"address:{neighbourhood(address)}", rate)


def _record(door: str, subject: str, rate: str) -> None:
    """Write the refusal; its target is a row that need not be there, since nobody may be known."""
    digest = salted_hmac("accounts.throttles", f"{door}:{subject}", algorithm="sha256")
    guard = SignInGuard(subject=digest.hexdigest(), since=timezone.now())
    kind = subject.partition(":")[0]
    person = subject.partition(":")[2] if kind == "person" else ""
    events.record(
        "user.throttled",
        actor=Actor.system(),
        target=guard,
        door=door,
        rate=rate,
        by=kind,
        user_id=person,
    )
