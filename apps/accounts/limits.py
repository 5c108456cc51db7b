"""How much a caller may use up: limits, what is counted against them, and when they open; plain.

A call is counted once, with all of its limits, when its rows are known: one request, and as many
rows. What is known to be used up is refused from memory before that, so that a caller who is over
her limit costs no body and no trip. Where the counters live is their own business (``Counters``);
how far the sums can be off is written in docs/decisions/0019-limits.md.
"""

import contextlib
import hashlib
import ipaddress
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Protocol

from apps.accounts.callers import Caller
from apps.accounts.snapshot import CountedBy, PlanBody
from apps.core.errors import RateLimited

MINUTE, DAY = 60, 86_400
# Limits above these are leased: a process takes a hundredth at a time and spends it by itself.
LEASED_ABOVE = {MINUTE: 600, DAY: 100_000}
BLOCKS = 100
# A thread may be so late at the turn of a window; beyond that the clock was set back.
TURN_SECONDS = 5
# Callers that a process remembers; beyond it those whose windows are over leave first.
MOST_REMEMBERED = 50_000


class Stage(IntEnum):
    """When something is counted; what does not fit at one stage is not counted at the next."""

    REQUEST = 0
    ROWS = 1


@dataclass(frozen=True, slots=True)
class Limit:
    """One sum that may not be passed in one window.

    Attributes:
        name: What clients see in ``RateLimit-Policy``.
        counter: Who is counted, and for what; limits with the same counter share it.
        most: Requests or rows in one window.
        seconds: Length of the window.
        words: Who allows how much, for people: "The plan trial allows 100 requests a minute".
        phase: Seconds by which the windows are shifted, so that not all open at once.
        block: How much a process takes at once; 0 where every use is counted by itself.
        policy: The limit as ``RateLimit-Policy`` names it.
    """

    name: str
    counter: str
    most: int
    seconds: int
    words: str
    stage: Stage
    phase: int
    block: int
    policy: str

    def window(self, now: float) -> int:
        """Return the number of the window that a Unix second lies in."""
        return int((now - self.phase) // self.seconds)

    def ends(self, window: int) -> float:
        """Return the Unix second at which a window ends."""
        return float((window + 1) * self.seconds + self.phase)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a process wants of one counter.

    Attributes:
        ends: Unix second at which the window ends; the counter may be forgotten then.
        need: Without so much the call is refused; 0 only asks.
        want: More than ``need`` where a lease is taken.
        known: The counter stood at so much before, even if it has forgotten.
        owed: Used while the counter could not be reached; added in any case.
    """

    counter: str
    window: int
    ends: float
    most: int
    need: int
    want: int
    stage: Stage
    known: int = 0
    owed: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of an ask.

    Attributes:
        used: Where the counter stands now, what was given included.
        given: Between ``need`` and ``want``, or 0.
        most: What was the limit there.
        stands_in: Whether another counter answered in the place of the one that could not.
    """

    used: int
    given: int
    most: int
    stands_in: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands with one limit."""

    limit: Limit
    remaining: int
    reset_seconds: int


class Counters(Protocol):
    """Where uses are added up."""

    def take(self, asks: Sequence[Ask], now: float) -> Sequence[Taken]:
        """Count all asks of a stage, or none of them; one answer for each."""
        ...


def given(asks: Sequence[Ask], used: Sequence[int]) -> list[int]:
    """Decide how much each ask gets of counters that stand at ``used``.

    A lease shrinks as its counter fills up, so that little lies unused in processes at the end.
    """
    fits = {
        stage: all(
            one.need == 0 or count + one.need <= one.most
            for one, count in zip(asks, used, strict=True)
            if one.stage <= stage
        )
        for stage in Stage
    }
    return [
        min(one.want, max(one.need, (one.most - count) // 8)) if one.need and fits[one.stage] else 0
        for one, count in zip(asks, used, strict=True)
    ]


# --- which limits a caller has ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the operator allows besides plans, in requests a minute; 0 is no limit."""

    person: int = 0
    address: int = 0
    refused: int = 0


def plan_limits(plan: PlanBody, subject: str) -> tuple[Limit, ...]:
    """Return the limits of a plan for one who is counted against it."""
    wanted = (
        ("requests", plan.requests_per_minute, MINUTE, Stage.REQUEST, "requests a minute"),
        ("rows", plan.rows_per_minute, MINUTE, Stage.ROWS, "predictions a minute"),
        ("rows-day", plan.rows_per_day, DAY, Stage.ROWS, "predictions a day (UTC)"),
    )
    return tuple(
        _limit(
            name,
            subject,
            most,
            seconds,
            stage=stage,
            words=f"The plan {plan.name} allows {most:,} {unit}",
        )
        for name, most, seconds, stage, unit in wanted
        if most is not None
    )


def subject_of(caller: Caller, plan: PlanBody) -> str:
    """Name whose uses are added up: a key, or a person with everything of hers on that plan."""
    if caller.key is not None and plan.counted_by is CountedBy.KEY:
        return f"key:{caller.key.id}"
    return f"person:{caller.user_id}:{plan.name}"


def most_rows(plan: PlanBody | None, ceiling: int) -> int:
    """Return the rows of one call at the most; a call that can never be paid for is too large."""
    if plan is None:
        return ceiling
    bounds = (plan.rows_per_call, plan.rows_per_minute, plan.rows_per_day)
    return min([ceiling, *(max(1, one) for one in bounds if one is not None)])


@lru_cache(maxsize=8192)
def _refused_limit(address: str, most: int) -> Limit:
    words = f"One address may present no or bad credentials {most:,} times a minute"
    subject = f"address:{neighbourhood(address)}"
    return _limit("refused", subject, most, words=words)


@lru_cache(maxsize=8192)
def _address_limit(address: str, most: int) -> Limit:
    words = f"One address may make {most:,} requests a minute"
    subject = f"address:{neighbourhood(address)}"
    return _limit("requests-address", subject, most, words=words)


@lru_cache(maxsize=8192)
def _person_limit(user_id: int, most: int) -> Limit:
    words = f"A person may make {most:,} requests a minute, with all keys and tokens"
    subject = f"person:{user_id}"
    return _limit("requests-person", subject, most, words=words)


def credential_of(headers: Mapping[str, str]) -> str:
    """Return the text that a request presents, whatever it is worth; names in lower case."""
    return headers.get("x-api-key") or headers.get("authorization") or ""


def neighbourhood(address: str) -> str:
    """Return what is counted as one address: a customer of IPv6 has 2**64 of them."""
    found = ipaddress.ip_address(address)
    if found.version == 4:
        return address
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))


def _limit(
    name: str,
    subject: str,
    most: int,
    seconds: int = MINUTE,
    *,
    stage: Stage = Stage.REQUEST,
    words: str,
) -> Limit:
    digest = hashlib.blake2b(subject.encode(), digest_size=4).digest()
    # Days are those of UTC: people read them in a calendar.
    phase = int.from_bytes(digest, "big") % seconds if seconds == MINUTE else 0
    return Limit(
        name=name,
        counter=f"{name}:{subject}",
        most=max(0, most),
        seconds=seconds,
        words=words,
        stage=stage,
        phase=phase,
        block=most // BLOCKS if most > LEASED_ABOVE[seconds] else 0,
        policy=f'"{name}";q={most};w={seconds}',
    )


# --- counting ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Known:
    """What a process knows of one counter in one window, from ``begins`` until before ``ends``.

    Attributes:
        used: The counter stands at this or higher; leases taken here are part of it.
        left: Of those leases, what is not spent yet.
        owed: Counted elsewhere while the counter could not be reached.
    """

    window: int
    begins: float
    ends: float
    used: int = 0
    left: int = 0
    owed: int = 0

    def room(self, most: int) -> int:
        return self.left + max(0, most - self.used)

    def remaining(self, most: int) -> int:
        return max(0, self.room(most) - self.owed)


@dataclass(slots=True)
class _Line:
    """One limit in one charge."""

    limit: Limit
    known: _Known
    cost: int = 1
    drawn: int = 0
    ask: Ask | None = None
    taken: Taken | None = None

    def standing(self, now: float) -> Standing:
        taken, most = self.taken, self.limit.most
        if taken is not None and taken.stands_in:
            remaining = max(0, min(most, taken.most - taken.used))
        else:
            remaining = self.known.remaining(most)
        return Standing(self.limit, remaining, max(1, math.ceil(self.known.ends - now)))

    def is_short(self) -> bool:
        """Whether the counter said no, and for want of its own room."""
        ask, taken = self.ask, self.taken
        if ask is None or taken is None or not ask.need or taken.given:
            return False
        return taken.used + ask.need > taken.most


class Limiter:
    """Counts the calls of one process; all of its methods may be called by many threads.

    Its lock is never held while a counter is asked.
    """

    def __init__(
        self,
        counters: Counters,
        *,
        ceilings: Ceilings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the counters.

        Args:
            counters: Where uses are added up.
            ceilings: What holds besides plans.
            clock: Unix seconds.
        """
        self._counters = counters
        self._ceilings = ceilings or Ceilings()
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._good: set[int] = set()
        self._plans: dict[str, tuple[PlanBody, tuple[Limit, ...]]] = {}

    # --- who may come in at all ---

    def guard(self, address: str | None, credential: str = "") -> None:
        """Refuse an address whose credentials were bad too often, before another one is read.

        One that was good here before is read all the same: a program that goes on with a revoked
        key must not shut out everybody who shares its address.

        Raises:
            RateLimited: It has to wait.
        """
        if self._ceilings.refused and address and hash(credential) not in self._good:
            self._require_open((_refused_limit(address, self._ceilings.refused),))

    def note_good(self, credential: str) -> None:
        """Remember a credential that was found good, by a number that tells nothing of it."""
        if len(self._good) >= MOST_REMEMBERED:
            self._good = set()
        self._good.add(hash(credential))

    def note_refused(self, address: str | None, credential: str = "") -> None:
        """Count a call with a bad credential or none; beyond the limit ``guard`` refuses."""
        self._good.discard(hash(credential))
        if self._ceilings.refused and address:
            # The one that fills the limit still hears what is wrong with its credential.
            with contextlib.suppress(RateLimited):
                self.charge((_refused_limit(address, self._ceilings.refused),), 0)

    def enter(self, caller: Caller, address: str | None, *, rows: bool = True) -> "Visit":
        """Let a caller in, unless memory says that nothing is left.

        Args:
            caller: Who asks.
            address: Where the call comes from.
            rows: Whether the call may ask for predictions.

        Raises:
            RateLimited: It has to wait.
        """
        limits = self._limits_of(caller, address)
        if not rows:
            limits = tuple(one for one in limits if one.stage is Stage.REQUEST)
        self._require_open(limits)
        return Visit(self, limits)

    # --- counting ---

    def charge(self, limits: Sequence[Limit], rows: int) -> tuple[Standing, ...]:
        """Count one request and some rows, in one trip at the most.

        Returns:
            How the caller stands now; nothing when memory knows it as well.

        Raises:
            RateLimited: It does not fit. A request that does not fit costs nothing; rows that do
                not fit cost their request.
        """
        now = self._clock()
        if self._is_paid(limits, rows, now):
            return ()
        lines, short = self._drawn(limits, rows, now)
        asking = [(line, line.ask) for line in lines if line.ask is not None]
        if any(ask.need for _, ask in asking):
            taken = self._counters.take([ask for _, ask in asking], now)
            for (line, _), one in zip(asking, taken, strict=True):
                line.taken = one
            short = self._settled(lines) or short
        else:
            with self._lock:
                for line, ask in asking:
                    line.known.owed += ask.owed
        if short is not None:
            cost = 1 if short.limit.stage is Stage.REQUEST else rows
            raise self._refusal(short, lines, cost, now)
        return tuple(line.standing(now) for line in lines)

    def standings(self, limits: Sequence[Limit]) -> tuple[Standing, ...]:
        """Say from memory how a caller stands."""
        now = self._clock()
        with self._lock:
            return tuple(_Line(one, self._known_of(one, now)).standing(now) for one in limits)

    def _is_paid(self, limits: Sequence[Limit], rows: int, now: float) -> bool:
        """Pay a call from leases alone, which is how nearly all calls of large limits are paid."""
        with self._lock:
            for limit in limits:
                known = self._known.get(limit.counter)
                cost = rows if limit.stage is Stage.ROWS else 1
                if known is None or not known.begins <= now < known.ends:
                    return False
                if not cost <= known.left <= limit.block:
                    return False
            for limit in limits:
                self._known[limit.counter].left -= rows if limit.stage is Stage.ROWS else 1
        return True

    def _drawn(
        self, limits: Sequence[Limit], rows: int, now: float
    ) -> tuple[list[_Line], _Line | None]:
        """Spend what was leased and say what has to be asked for, and what cannot fit any more.

        Raises:
            RateLimited: The request does not fit.
        """
        with self._lock:
            lines = [_Line(one, self._known_of(one, now)) for one in limits]
            late = None
            for line in lines:
                # A lease from before the plan was cut is worth no more than one of today.
                line.known.left = min(line.known.left, line.limit.block)
                is_request = line.limit.stage is Stage.REQUEST
                line.cost = 1 if is_request else rows
                if line.cost <= line.known.room(line.limit.most):
                    continue
                if is_request:
                    raise self._refusal(line, lines, 1, now)
                late = late or line
            for line in lines:
                if late is not None and line.limit.stage is Stage.ROWS:
                    line.cost = 0
                self._draw(line)
        return lines, late

    def _draw(self, line: _Line) -> None:
        known, limit = line.known, line.limit
        line.drawn = min(line.cost, known.left)
        known.left -= line.drawn
        need = line.cost - line.drawn
        if need or not limit.block:
            line.ask = Ask(
                counter=limit.counter,
                window=known.window,
                ends=known.ends,
                most=limit.most,
                need=need,
                want=max(need, limit.block) if need else 0,
                stage=limit.stage,
                known=known.used,
                owed=known.owed,
            )
            known.owed = 0  # one thread alone brings it

    def _settled(self, lines: Sequence[_Line]) -> _Line | None:
        """Learn from the answers; return the limit that the call did not fit in, if any."""
        short = next((line for line in lines if line.is_short()), None)
        with self._lock:
            for line in lines:
                if line.ask is not None and line.taken is not None:
                    _learn(line.known, line.ask, line.taken)
                if short is not None and line.limit.stage >= short.limit.stage:
                    line.known.left += line.drawn
        return short

    def _known_of(self, limit: Limit, now: float) -> _Known:
        known = self._known.get(limit.counter)
        if known is not None and known.begins <= now < known.ends:
            return known
        window = limit.window(now)
        fresh = _Known(window, limit.ends(window - 1), limit.ends(window))
        if known is not None and 0 < known.begins - now < TURN_SECONDS:
            return fresh  # a thread whose clock was read just before the turn
        if len(self._known) >= MOST_REMEMBERED:
            self._forget(now)
        self._known[limit.counter] = fresh
        return fresh

    def _forget(self, now: float) -> None:
        """Make room: windows that are over leave, then those that were used least."""
        living = {name: one for name, one in self._known.items() if one.ends > now}
        excess = max(0, len(living) - MOST_REMEMBERED // 2)
        for name in sorted(living, key=lambda name: living[name].used)[:excess]:
            del living[name]
        self._known = living

    def _require_open(self, limits: Sequence[Limit]) -> None:
        now = self._clock()
        for limit in limits:
            known = self._known.get(limit.counter)
            if known is None or known.used < limit.most or known.left:
                continue
            if known.begins <= now < known.ends:
                with self._lock:
                    lines = [_Line(one, self._known_of(one, now)) for one in limits]
                line = next(one for one in lines if one.limit is limit)
                raise self._refusal(line, lines, 1, now)

    def _refusal(self, line: _Line, lines: Sequence[_Line], cost: int, now: float) -> "RateLimited":
        standing = line.standing(now)
        left = standing.remaining
        short = f"{left:,} left, and this call needs {cost:,}" if left else "none is left"
        refusal = RateLimited(
            f"{line.limit.words}; {short}. The limit opens again in {standing.reset_seconds} s.",
            seconds=standing.reset_seconds,
        )
        refusal.headers = headers_of([one.standing(now) for one in lines], tightest=standing)
        return refusal

    def _limits_of(self, caller: Caller, address: str | None) -> tuple[Limit, ...]:
        limits = self._of_plan(caller)
        if self._ceilings.person:
            limits = (*limits, _person_limit(caller.user_id, self._ceilings.person))
        if self._ceilings.address and address:
            limits = (*limits, _address_limit(address, self._ceilings.address))
        return limits

    def _of_plan(self, caller: Caller) -> tuple[Limit, ...]:
        plan = caller.plan
        if plan is None:
            return ()
        subject = subject_of(caller, plan)
        kept = self._plans.get(subject)
        if kept is not None and (kept[0] is plan or kept[0] == plan):
            return kept[1]
        if len(self._plans) >= MOST_REMEMBERED:
            self._plans = {}
        limits = plan_limits(plan, subject)
        self._plans[subject] = (plan, limits)
        return limits


def _learn(known: _Known, ask: Ask, taken: Taken) -> None:
    if taken.stands_in:
        known.owed += ask.owed + taken.given
        return
    known.used = max(known.used, taken.used)
    known.left += max(0, taken.given - ask.need)


@dataclass(slots=True)
class Visit:
    """One call of a caller, counted once; without limits it is a call that nobody counts."""

    limiter: Limiter | None = None
    limits: Sequence[Limit] = ()
    _standings: Sequence[Standing] = ()
    _is_counted: bool = False

    def spend(self, rows: int) -> None:
        """Count the request and its rows; what is counted already is not counted again.

        Raises:
            RateLimited: They do not fit.
        """
        if self.limiter is None or not self.limits or self._is_counted:
            return
        self._is_counted = True
        self._standings = self.limiter.charge(self.limits, rows)

    def close(self) -> None:
        """Count a call that ended before its rows were known as one request.

        Raises:
            RateLimited: It does not fit.
        """
        self.spend(0)

    def headers(self) -> Mapping[str, str]:
        """Say how the caller stands: the tightest limit, and which ones there are."""
        if self.limiter is None or not self.limits:
            return {}
        return headers_of(self._standings or self.limiter.standings(self.limits))


def _share(one: Standing) -> float:
    return one.remaining / (one.limit.most or 1)


def headers_of(
    standings: Sequence[Standing], *, tightest: Standing | None = None
) -> Mapping[str, str]:
    """Write the headers of a limited caller, from the limit that is fullest for its size."""
    tight = tightest or min(standings, key=_share)
    return {
        "RateLimit-Limit": str(tight.limit.most),
        "RateLimit-Remaining": str(tight.remaining),
        "RateLimit-Reset": str(tight.reset_seconds),
        "RateLimit-Policy": ", ".join(one.limit.policy for one in standings),
    }
