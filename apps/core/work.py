"""Background work: a row in the caller's transaction, a message as a hint, a lease while it runs.

``@background`` declares a kind of work under a name; ``enqueue`` asks for it by that name, so a
lower floor can start what lives above it. A worker claims a row by compare-and-set, keeps its lease
alive while it runs, and finishes only with its own token: a stale worker changes nothing. The
reaper sends again what was never taken or whose lease ran out. Work may therefore run twice; each
kind must do no harm then.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
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
from django.db.models import F, Model, Q, QuerySet
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
# A report within the same stage is written at most this often.
REPORT_SECONDS = 0.5
MOST_STAGES = 100
LOST = "The worker died while it ran this."


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of work is run. ``given_up`` learns that it will not be tried again."""

    name: str
    run: Callable[..., None]
    attempts: int
    given_up: Callable[..., None] | None
    waits: tuple[float, ...] | None


_KINDS: dict[str, Kind] = {}


def background(
    name: str,
    *,
    attempts: int = 3,
    given_up: Callable[..., None] | None = None,
    waits: Sequence[float] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a kind of work: ``app.action``.

    Args:
        name: Stable name; also the Celery task's.
        attempts: Claims after which it has failed, lost leases included.
        given_up: Called with the work's arguments and ``reason=`` when it has failed.
        waits: For work that asks somebody outside: seconds before each further try of an error
            that may pass; any other error is final. It replaces ``attempts``.
    """

    def declare(run: Callable[..., None]) -> Callable[..., None]:
        tries = attempts if waits is None else len(waits) + 1
        kind = Kind(name, run, tries, given_up, None if waits is None else tuple(waits))
        _KINDS[name] = kind

        @shared_task(name=name, ignore_result=True)
        def task(work_id: int) -> None:
            run_once(work_id)

        return run

    return declare


def enqueue(name: str, *, subject: Model | None = None, **args: Any) -> Work:
    """Ask for work in the caller's transaction; it is sent after the commit.

    ``subject`` is the row that it is about; ``newest_of`` finds the work by it.
    """
    work = Work.objects.create(
        name=name,
        args=args,
        not_before=timezone.now(),
        subject_kind="" if subject is None else subject._meta.label_lower,
        subject_id="" if subject is None else str(subject.pk),
    )
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
    reports = _reporter.set(_Reporter(work))
    try:
        with _Heartbeat(work):
            kind.run(**work.args)
    except Exception as error:  # whatever it raises is this work's verdict
        LOG.exception("work %s %s failed", work.name, work.pk)
        _after(error, work, kind)
        return True
    finally:
        _reporter.reset(reports)
    _mine(work).update(state=Work.State.DONE, finished=timezone.now(), error="", problem="")
    return True


def _after(error: Exception, work: Work, kind: Kind) -> None:
    """Decide on work that failed: once more later, or never again."""
    fault = _Fault.of(error, work)
    if isinstance(error, OperationalError | InterfaceError):
        _put_back(work, fault)
    elif kind.waits is not None:
        _failed(work, kind, fault, is_final=not _may_pass(error))
    elif _may_pass(error):
        _put_back(work, fault)
    else:
        _failed(work, kind, fault)


def report(stage: str, done: int | None = None, total: int | None = None) -> None:
    """Say how far the work that runs here has come; elsewhere this does nothing.

    It is cheap to call often: within a stage at most two writes a second. Inside a transaction
    nobody sees it before the commit.

    Args:
        stage: What is being done, in words for people: *Checking the graph*.
        done: How much of ``total`` is done, in any unit.
        total: How much there is; None when that is not known.
    """
    reporter = _reporter.get()
    if reporter is not None:
        reporter.report(stage, done, total)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a try and how long it took, or has taken so far."""

    words: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one piece of work has come.

    Attributes:
        state: queued, running, done or failed.
        stage: What is being done, or was done last, in words.
        stages: All stages of the newest try, the last one included.
        done: How much of ``total``; None when it was not said.
        seconds: Since the newest try began, until its end.
        seconds_left: Until the end of this stage; None when it cannot be known.
        error: A sentence for anybody; empty while nothing went wrong.
    """

    work_id: int
    name: str
    state: str
    stage: str
    stages: tuple[Stage, ...]
    done: int | None
    total: int | None
    seconds: float
    seconds_left: float | None
    attempts: int
    error: str

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen, so that a page need not ask again."""
        return self.state in {Work.State.DONE, Work.State.FAILED}

    @property
    def percent(self) -> int | None:
        """How much is done, 0 to 100; None when that is not known."""
        if self.state == Work.State.DONE:
            return 100
        if self.done is None or not self.total:
            return None
        return max(0, min(100, int(100 * self.done / self.total)))


def newest_of(kind: str, thing_id: object) -> Progress | None:
    """Return how far the newest work on a thing has come: ``("registry.modelversion", 7)``."""
    work = Work.objects.filter(subject_kind=kind, subject_id=str(thing_id)).order_by("-id").first()
    return None if work is None else progress_of(work)


def progress_of(work: Work) -> Progress:
    """Return how far a piece of work has come."""
    until = work.finished or (timezone.now() if work.state == Work.State.RUNNING else work.updated)
    end = (until or work.created).timestamp()
    stages = tuple(_timed(work.stages or (), end))
    begun = end if work.started is None else work.started.timestamp()
    return Progress(
        work_id=work.pk,
        name=work.name,
        state=work.state,
        stage=work.stage,
        stages=stages,
        done=work.done,
        total=work.total,
        seconds=max(0.0, end - begun),
        seconds_left=_seconds_left(work, stages),
        attempts=work.attempts,
        error=work.problem,
    )


def _timed(stages: Sequence[Sequence[Any]], end: float) -> Iterable[Stage]:
    """Each stage lasts until the next one begins."""
    ends = [float(at) for _, at in stages[1:]] + [end]
    for (words, at), until in zip(stages, ends, strict=False):  # without stages, none ends
        yield Stage(str(words), max(0.0, until - float(at)))


def _seconds_left(work: Work, stages: tuple[Stage, ...]) -> float | None:
    if work.state != Work.State.RUNNING or not work.done or not work.total or not stages:
        return None
    return max(0.0, stages[-1].seconds * (work.total - work.done) / work.done)


class _Reporter:
    """Writes the progress of one try, sparingly, and only while the try is still the row's."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._stages: list[list[Any]] = []
        self._last = float("-inf")

    def report(self, stage: str, done: int | None, total: int | None) -> None:
        stage = stage[:200]
        now, is_new = time.monotonic(), not self._stages or self._stages[-1][0] != stage
        if not is_new and now - self._last < REPORT_SECONDS:
            return
        self._last = now
        moment = timezone.now()
        if is_new:
            self._begin(stage, moment)
        try:
            _mine(self._work).update(
                stage=stage,
                stages=self._stages,
                done=done,
                total=total,
                updated=moment,
            )
        except DatabaseError:
            if connection.in_atomic_block:  # the work's own transaction is broken, and must know
                raise
            LOG.warning("the progress of work %s could not be written", self._work.pk)

    def _begin(self, stage: str, moment: datetime) -> None:
        self._stages.append([stage, round(moment.timestamp(), 3)])
        # Work that names thousands of stages keeps its first one and the newest.
        if len(self._stages) > MOST_STAGES:
            del self._stages[1]


_reporter: ContextVar[_Reporter | None] = ContextVar("work_reporter", default=None)


@dataclass(frozen=True, slots=True)
class _Fault:
    """What went wrong: for operators, and for whoever may see the thing worked on."""

    reason: str
    words: str

    @classmethod
    def of(cls, error: Exception, work: Work) -> "_Fault":
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, PlatformError):
            return cls(reason, error.message)
        # What a library says may hold anything; it stays with those who run the platform.
        return cls(
            reason,
            f"Something unexpected went wrong. Tell your operator this number: work {work.pk}.",
        )

    def columns(self) -> dict[str, str]:
        return {"error": self.reason[:2000], "problem": self.words[:2000]}


def reap() -> int:
    """Send what is unsent or lost, give up what was lost too often; return how many were sent."""
    now = timezone.now()
    for work in Work.objects.filter(state=Work.State.RUNNING, lease_until__lt=now)[:500]:
        _lost(work, now)
    unsent = Q(sent_at__isnull=True) | Q(sent_at__lt=now - RESEND)
    waiting = list(Work.objects.filter(unsent, state=Work.State.QUEUED, not_before__lte=now)[:500])
    for work in waiting:
        _send(work)
    return len(waiting)


def _lost(work: Work, now: datetime) -> None:
    """Take work from a worker that died; one that cannot be taken holds up no other."""
    try:
        with transaction.atomic():
            # The worker may have come back since it was looked at, and extended its lease.
            if _mine(work).filter(lease_until__lt=now).update(lease_until=now):
                _failed(work, _KINDS.get(work.name), _Fault(LOST, LOST))
    except Exception:
        LOG.exception("work %s %s could not be taken from its worker", work.name, work.pk)


def ended_before(moment: datetime) -> QuerySet[Work]:
    """Return work that was over by then, oldest first; it may be removed."""
    ended = Work.objects.filter(state__in=[Work.State.DONE, Work.State.FAILED])
    return ended.filter(finished__lt=moment).order_by("id")


def _claim(work_id: int) -> Work | None:
    now = timezone.now()
    token = ids.new_id()
    free = Q(state=Work.State.QUEUED, not_before__lte=now)
    claimed = Work.objects.filter(free, pk=work_id).update(
        state=Work.State.RUNNING,
        attempts=F("attempts") + 1,
        token=token,
        lease_until=now + LEASE,
        started=now,
        updated=now,
        stage="",
        stages=None,
        done=None,
        total=None,
    )
    return Work.objects.get(pk=work_id) if claimed else None


def _mine(work: Work) -> Any:
    return Work.objects.filter(pk=work.pk, token=work.token, state=Work.State.RUNNING)


def _may_pass(error: Exception) -> bool:
    """Whether it says something of the moment and nothing of the work."""
    retryable = isinstance(error, PlatformError) and error.retryable
    return retryable or isinstance(error, OperationalError | InterfaceError)


def _put_back(work: Work, fault: _Fault) -> None:
    """Queue it again for a little later; this try does not count."""
    _mine(work).update(
        state=Work.State.QUEUED,
        attempts=F("attempts") - 1,
        not_before=timezone.now() + PAUSE,
        sent_at=None,
        **fault.columns(),
    )


def _failed(work: Work, kind: Kind | None, fault: _Fault, *, is_final: bool = False) -> None:
    if kind is not None and work.attempts < kind.attempts and not is_final:
        later = timezone.now() + timedelta(seconds=_wait(work, kind))
        _mine(work).update(
            state=Work.State.QUEUED, not_before=later, sent_at=None, **fault.columns()
        )
        return
    with transaction.atomic():
        gone = _mine(work).update(
            state=Work.State.FAILED, finished=timezone.now(), **fault.columns()
        )
        if gone and kind is not None and kind.given_up is not None:
            kind.given_up(**work.args, reason=fault.reason)


def _wait(work: Work, kind: Kind) -> float:
    """Return how long to wait after this many claims, in seconds."""
    return 2.0 * work.attempts if kind.waits is None else kind.waits[work.attempts - 1]


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
