"""Sign in by name and password: failures are counted, and too many lock the door for a while.

A name and an address are counted each by itself, in the database, so that all processes count
alike, also without Redis. A name that nobody has is counted and locked like one that somebody has.
The rows are written apart from whatever the caller does: a refusal undoes nothing here.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.utils import timezone
from django.utils.crypto import salted_hmac

from apps.accounts.limits import neighbourhood
from apps.accounts.models import SignInGuard, User
from apps.accounts.selectors import user_called
from apps.core import context, events, metrics
from apps.core.errors import LockedOut, WrongPassword
from apps.core.events import Actor

# A whole office may stand behind one address.
ADDRESS_FACTOR = 10
# However long it goes on, a lock lasts no longer.
LONGEST = timedelta(hours=4)
# How long a row that locks nothing is kept: longer than any lock, so that doubling goes on.
KEPT = timedelta(days=1)
_WRONG = "The name and the password do not belong together."


@dataclass(frozen=True, slots=True)
class Subject:
    """What is counted: a name or an address.

    Attributes:
        digest: Stands for it in the table; a mistyped name may be a password.
        allowed: Failures that lock it.
    """

    digest: str
    allowed: int


def person_with(name: str, password: str) -> User:
    """Return whose name (or email address) and password these are.

    The count of failures is not cleared yet: a second factor may be wanted (``succeeded`` does).

    Raises:
        LockedOut: The name or the address is locked, also for the right password.
        WrongPassword: They do not belong together, or the user is disabled; both look the same.
    """
    user = user_called(name)
    require_unlocked(name, user)
    if user is None:
        make_password(password)  # an unknown name must take as long as a wrong password
    if user is None or not user.check_password(password) or not user.is_active:
        raise failed(name, user)
    require_unlocked(name, user)  # others failed while the hash was computed
    return user


def require_unlocked(name: str, user: User | None) -> None:
    """Refuse a name or an address that is locked.

    Raises:
        LockedOut: For how long it still is.
    """
    by_name, *others = [one.digest for one in _subjects(name, user)]
    now = timezone.now()
    locked = SignInGuard.objects.filter(pk__in=[by_name, *others], locked_until__gt=now)
    ends = {one.pk: one.locked_until for one in locked if one.locked_until is not None}
    if ends:
        metrics.SIGN_INS.labels("locked").inc()
        raise _locked_out(max(ends.values()), now, is_name=by_name in ends)


def failed(name: str, user: User | None, *, method: str = "password") -> WrongPassword:
    """Count a failed sign-in by name and by address; return what to raise.

    ``method`` says what was wrong: ``password``, ``code``.
    """
    with transaction.atomic():
        # In one order everywhere, so that two failures at once do not wait for each other.
        for subject in sorted(_subjects(name, user), key=lambda one: one.digest):
            _count(subject, user)
        if user is not None:
            events.record("user.sign_in_failed", actor=_NOBODY, target=user, method=method)
    metrics.SIGN_INS.labels("failed").inc()
    return WrongPassword(_WRONG)


def succeeded(user: User) -> None:
    """Forget the failures of a name: its holder is in. Those of the address stay."""
    SignInGuard.objects.filter(pk=_of_name(user.username).digest).delete()
    metrics.SIGN_INS.labels("ok").inc()


@transaction.atomic
def unlock(user: User, *, actor: Actor, reason: str = "") -> bool:
    """Let somebody try again at once; return whether there was anything to forget."""
    rows, _ = SignInGuard.objects.filter(pk=_of_name(user.username).digest).delete()
    if rows:
        events.record("user.unlocked", actor=actor, target=user, reason=reason)
    return bool(rows)


def locked_until(user: User) -> datetime | None:
    """Return until when a user's name is locked, or None."""
    rows = SignInGuard.objects.filter(pk=_of_name(user.username).digest)
    until = rows.values_list("locked_until", flat=True).first()
    return until if until is not None and until > timezone.now() else None


def drop_old() -> int:
    """Forget counts that are over; return how many."""
    now = timezone.now()
    rows = SignInGuard.objects.filter(since__lt=now - KEPT)
    dropped, _ = rows.exclude(locked_until__gt=now - KEPT).delete()
    return dropped


def lock_length(failures: int, *, allowed: int, first: timedelta) -> timedelta | None:
    """Return for how long a failure locks, or None: each full count doubles the length."""
    rounds, rest = divmod(failures, allowed)
    if rest or not rounds:
        return None
    doubled = first * (1 << min(rounds - 1, 16))
    return max(first, min(doubled, LONGEST))


_NOBODY = Actor.system()


def _subjects(name: str, user: User | None) -> list[Subject]:
    found = [_of_name(user.username if user else name)]
    address = context.current().address
    if address:
        allowed = settings.LOCKOUT_FAILURES * ADDRESS_FACTOR
        found.append(_subject("address", neighbourhood(address), allowed))
    return found


def _of_name(name: str) -> Subject:
    """Count a user under the user name, whichever of name and email address was typed."""
    plain = name.casefold() if "@" in name else name
    return _subject("name", plain, settings.LOCKOUT_FAILURES)


def _subject(kind: str, value: str, allowed: int) -> Subject:
    digest = salted_hmac("accounts.guards", f"{kind}:{value}", algorithm="sha256").hexdigest()
    return Subject(digest, allowed)


def _count(subject: Subject, user: User | None) -> None:
    """Add one failure; lock where it fills the count, and say so once."""
    now, length = timezone.now(), timedelta(minutes=settings.LOCKOUT_MINUTES)
    guard, _ = SignInGuard.objects.select_for_update().get_or_create(
        subject=subject.digest, defaults={"since": now}
    )
    if now > max(guard.since, guard.locked_until or guard.since) + length:
        guard.failures, guard.since, guard.locked_until = 0, now, None
    guard.failures += 1
    lock = lock_length(guard.failures, allowed=subject.allowed, first=length)
    if lock is not None:
        guard.locked_until = now + lock
    guard.save()
    if lock is not None:
        is_name = user is not None and subject == _of_name(user.username)
        events.record(
            "user.locked_out",
            actor=_NOBODY,
            target=user if user is not None and is_name else guard,
            failures=guard.failures,
            minutes=ceil(lock / timedelta(minutes=1)),
        )


def _locked_out(until: datetime, now: datetime, *, is_name: bool) -> LockedOut:
    """Say for how long; a platform admin unlocks names, addresses only wait."""
    seconds = ceil((until - now).total_seconds())
    minutes = ceil(seconds / 60)
    where, help_ = (
        ("", ", or ask a platform admin to unlock you")
        if is_name
        else (" from your network address", "")
    )
    return LockedOut(
        f"Too many sign-ins failed{where}. Try again in {minutes} "
        f"minute{'s' if minutes > 1 else ''}{help_}.",
        seconds=seconds,
    )
