"""Background work: a row in the caller's transaction, a message as a hint, a lease while it runs.

``@background`` declares a kind of work under a name; ``enqueue`` asks for it by that name, so a
lower floor can start what lives above it. A worker claims a row by compare-and-set, keeps its lease
alive while it runs, and finishes only with its own token: a stale worker changes nothing. The
reaper sends again what was never taken or whose lease ran out. Work may therefore run twice; each
kind must do no harm then.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from celery import current_app, shared_task
from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connection,
    transaction,
)
from django.db.models import F, Q
from django.utils import timezone

from apps.core import ids
from apps.core.errors import PlatformError
from apps.core.models import Work

LOG = logging.getLogger(__name__)
LEASE = timedelta(seconds=30)
HEARTBEAT_SECONDS = 10.0
RESEND = timedelta(seconds=20)
# Before work is tried again that met a database or a store that does not answer.
PAUSE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of work is run. ``given_up`` learns that it will not be tried again."""

    name: str
    run: Callable[..., None]
    attempts: int
    given_up: Callable[..., None] | None


_KINDS: dict[str, Kind] = {}


def background(
    name: str, *, attempts: int = 3, given_up: Callable[..., None] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a kind of work: ``app.action``.

    Args:
        name: Stable name; also the Celery task's.
        attempts: Claims after which it has failed, lost leases included.
        given_up: Called with the work's arguments and ``reason=`` when it has failed.
    """

    def declare(run: Callable[..., None]) -> Callable[..., None]:
        kind = Kind(name, run, attempts, given_up)
        _KINDS[name] = kind

        @shared_task(name=name, ignore_result=True)
        def task(work_id: int) -> None:
            run_once(work_id)

        return run

    return declare


def enqueue(name: str, **args: Any) -> Work:
    """Ask for work in the caller's transaction; it is sent after the commit."""
    work = Work.objects.create(name=name, args=args, not_before=timezone.now())
    transaction.on_commit(lambda: _send(work))
    return work


def _send(work: Work) -> None:
    """Hint at work; nothing that goes wrong here may undo what its asker has committed."""
    try:
        Work.objects.filter(pk=work.pk).update(sent_at=timezone.now())
        current_app.send_task(work.name, kwargs={"work_id": work.pk}, retry=False)
    except Exception as error:  # noqa: BLE001 - each broker's client has errors of its own
        LOG.warning("work %s could not be sent; the reaper will send it: %s", work.pk, error)


def run_once(work_id: int) -> bool:
    """Claim and run one piece of work; return whether this call ran it."""
    work = _claim(work_id)
    if work is None:
        return False
    kind = _KINDS[work.name]
    with _Heartbeat(work):
        try:
            kind.run(**work.args)
        except Exception as error:  # whatever it raises is this work's verdict
            LOG.exception("work %s %s failed", work.name, work.pk)
            reason = f"{type(error).__name__}: {error}"
            if _may_pass(error):
                _put_back(work, reason)
            else:
                _failed(work, kind, reason)
            return True
    _mine(work).update(state=Work.State.DONE, finished=timezone.now(), error="")
    return True


def reap() -> int:
    """Send what is unsent or lost, give up what was lost too often; return how many were sent."""
    now = timezone.now()
    for work in Work.objects.filter(state=Work.State.RUNNING, lease_until__lt=now)[:500]:
        _failed(work, _KINDS.get(work.name), "The worker died while it ran this.")
    unsent = Q(sent_at__isnull=True) | Q(sent_at__lt=now - RESEND)
    waiting = list(Work.objects.filter(unsent, state=Work.State.QUEUED, not_before__lte=now)[:500])
    for work in waiting:
        _send(work)
    return len(waiting)


def _claim(work_id: int) -> Work | None:
    now = timezone.now()
    token = ids.new_id()
    free = Q(state=Work.State.QUEUED, not_before__lte=now)
    claimed = Work.objects.filter(free, pk=work_id).update(
        state=Work.State.RUNNING,
        attempts=F("attempts") + 1,
        token=token,
        lease_until=now + LEASE,
    )
    return Work.objects.get(pk=work_id) if claimed else None


def _mine(work: Work) -> Any:
    return Work.objects.filter(pk=work.pk, token=work.token, state=Work.State.RUNNING)


def _may_pass(error: Exception) -> bool:
    """Whether it says something of the moment and nothing of the work."""
    retryable = isinstance(error, PlatformError) and error.retryable
    return retryable or isinstance(error, OperationalError | InterfaceError)


def _put_back(work: Work, reason: str) -> None:
    """Queue it again for a little later; this try does not count."""
    _mine(work).update(
        state=Work.State.QUEUED,
        attempts=F("attempts") - 1,
        not_before=timezone.now() + PAUSE,
        sent_at=None,
        error=reason[:2000],
    )


def _failed(work: Work, kind: Kind | None, reason: str) -> None:
    if kind is not None and work.attempts < kind.attempts:
        later = timezone.now() + timedelta(seconds=2 * work.attempts)
        _mine(work).update(
            state=Work.State.QUEUED, not_before=later, sent_at=None, error=reason[:2000]
        )
        return
    with transaction.atomic():
        gone = _mine(work).update(
            state=Work.State.FAILED, finished=timezone.now(), error=reason[:2000]
        )
        if gone and kind is not None and kind.given_up is not None:
            kind.given_up(**work.args, reason=reason)


class _Heartbeat:
    """Extends the lease of running work from a thread of its own."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{work.pk}", daemon=True)

    def __enter__(self) -> None:
        # Inside a test's transaction a second connection could not see the row.
        if not connection.in_atomic_block:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=HEARTBEAT_SECONDS)

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            try:
                _mine(self._work).update(lease_until=timezone.now() + LEASE)
            except DatabaseError:
                LOG.warning("the lease of work %s could not be extended", self._work.pk)
            finally:
                close_old_connections()
