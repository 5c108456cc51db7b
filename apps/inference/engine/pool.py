"""Loaded models of this process: lazy, loaded once however many ask, bounded by measured bytes.

Whoever wants a model takes a lease, which counts from that moment, so a model never leaves under
use. The pool does not know what it holds: anything with a size that can be warmed and closed.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from apps.core.errors import PlatformError
from apps.inference.engine.errors import DeadlinePassed, ModelUnavailable, Overloaded
from apps.registry.snapshot import VersionBody

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0

Key = tuple[str, int, str]


class Resident(Protocol):
    """Something that lives in the pool."""

    @property
    def resident_bytes(self) -> int:
        """Memory that leaves when it is closed."""
        ...

    def warm(self) -> None:
        """Do the slow things of a first call now."""
        ...

    def close(self) -> None:
        """Give the memory back; it is called without any lock and from any thread."""
        ...


R = TypeVar("R", bound=Resident)


@dataclass(frozen=True, slots=True)
class Loaded:
    """One model in memory, for the status of a worker."""

    version: VersionBody
    bytes: int
    leases: int
    pinned: bool


@dataclass(slots=True, eq=False)
class _Slot(Generic[R]):
    """One version's place: loading until ``ready`` is done, then loaded or forgotten."""

    version: VersionBody
    bytes: int
    must_load: bool
    leases: int = 0
    leaving: bool = False
    gone: bool = False
    model: R | None = None
    ready: "Future[R]" = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Failure:
    error: ModelUnavailable
    times: int
    until: float


class Lease(Generic[R]):
    """The right to use one model; it stays in memory until every lease is released."""

    __slots__ = ("_pool", "_released", "_slot")

    def __init__(self, pool: "ModelPool[R]", slot: "_Slot[R]") -> None:
        """Made by ``ModelPool.lease`` only."""
        self._pool = pool
        self._slot = slot
        self._released = False

    def model(self, deadline: float) -> R:
        """Wait for the model.

        Args:
            deadline: ``time.monotonic()`` second after which the caller no longer waits.

        Raises:
            DeadlinePassed: It was not loaded in time; the load goes on for others.
            ModelUnavailable: It cannot be loaded at present.
        """
        ready = self._slot.ready
        if not ready.done():
            try:
                return ready.result(timeout=max(0.0, deadline - time.monotonic()))
            except TimeoutError as error:
                if not ready.done():
                    raise DeadlinePassed(
                        "The model was still being loaded at the deadline. Try again in a moment."
                    ) from error
        return ready.result()

    def when_ready(self, act: "Callable[[Future[R]], None]") -> None:
        """Call ``act`` once the model is loaded or failed to; at once when it already has."""
        if self._slot.ready.done():
            act(self._slot.ready)
        else:
            self._slot.ready.add_done_callback(act)

    def release(self) -> None:
        """Give the lease back; calling it twice does no harm."""
        if not self._released:
            self._released = True
            self._pool._released(self._slot)  # noqa: SLF001 - a lease is a part of its pool

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class ModelPool(Generic[R]):
    """The models of one process. Built after the fork: loads run in threads of their own."""

    def __init__(
        self,
        load: Callable[[VersionBody], R],
        *,
        budget_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        parallel_loads: int = 2,
        max_waiting: int = 256,
        room_seconds: float = 5.0,
    ) -> None:
        """Make an empty pool.

        Args:
            load: Turns a version into a resident; what it raises reaches all who wait for it.
            budget_bytes: What all residents may take together.
            clock: Monotonic seconds, for the pause after a failed load.
            parallel_loads: Loads at one time.
            max_waiting: Callers that may wait for one version.
            room_seconds: How long a load waits for models in use to become idle.
        """
        self._load_version = load
        self._budget = budget_bytes
        self._clock = clock
        self._max_waiting = max_waiting
        self._room_seconds = room_seconds
        self._changed = threading.Condition()
        self._slots: OrderedDict[Key, _Slot[R]] = OrderedDict()  # least recently used first
        self._used = 0  # bytes of all slots that are not gone; kept, so that no call adds them up
        self._pinned: frozenset[Key] = frozenset()
        self._failures: dict[Key, _Failure] = {}
        self._turns = threading.BoundedSemaphore(parallel_loads)
        self._closed = False

    def lease(self, version: VersionBody) -> Lease[R]:
        """Take a lease, and start the load when nobody has yet; never waits.

        Raises:
            ModelUnavailable: The last load failed a moment ago, or the pool is closed.
            Overloaded: Too many already wait for this version.
        """
        return self._lease(version, must_load=False)

    def ensure(self, version: VersionBody, *, deadline: float) -> None:
        """Load and warm a version ahead of its use.

        It may exceed the budget for the time of a switch, because the old version can leave only
        after the new one is ready; and it does not wait for the pause after a failed load. Pin the
        version first: over the budget, one that is not pinned leaves as soon as it is idle.

        Raises:
            DeadlinePassed: It was not loaded in time.
            ModelUnavailable: It cannot be loaded.
        """
        with self._lease(version, must_load=True) as lease:
            lease.model(deadline).warm()

    def is_loaded(self, version: VersionBody) -> bool:
        """Whether a lease would find the model in memory."""
        with self._changed:
            slot = self._slots.get(_key(version))
            return slot is not None and slot.model is not None

    def pin(self, versions: Iterable[VersionBody]) -> None:
        """Name the versions that never leave to make room; it loads nothing."""
        with self._changed:
            self._pinned = frozenset(_key(version) for version in versions)
            victims = self._over_budget()
        _close_all(victims)

    def drop(self, version: VersionBody) -> None:
        """Forget a version: new calls do not find it, and it is closed after its last lease."""
        with self._changed:
            self._failures.pop(_key(version), None)
            slot = self._slots.get(_key(version))
            victims = [] if slot is None else self._retire(slot)
        _close_all(victims)

    def loaded(self) -> tuple[Loaded, ...]:
        """List the models in memory, least recently used first."""
        with self._changed:
            return tuple(
                Loaded(slot.version, slot.bytes, slot.leases, key in self._pinned)
                for key, slot in self._slots.items()
                if slot.model is not None
            )

    def close(self) -> None:
        """Close every model after its last lease, and refuse new ones."""
        with self._changed:
            self._closed = True
            victims = [
                model for slot in tuple(self._slots.values()) for model in self._retire(slot)
            ]
        _close_all(victims)

    def _lease(self, version: VersionBody, *, must_load: bool) -> Lease[R]:
        key = _key(version)
        starts = False
        with self._changed:
            slot = self._slots.get(key)
            if slot is None:
                self._refuse(key, even_so=must_load)
                slot = _Slot(version, bytes=0, must_load=must_load)
                self._slots[key] = slot
                starts = True
            elif slot.leases >= self._max_waiting and not slot.ready.done():
                raise Overloaded("Too many calls wait for this model to load. Try again shortly.")
            slot.must_load = slot.must_load or must_load
            slot.leases += 1
            self._slots.move_to_end(key)
        if starts:
            self._start(slot)
        return Lease(self, slot)

    def _start(self, slot: _Slot[R]) -> None:
        name = f"load-{slot.version.model}-{slot.version.number}"
        try:
            threading.Thread(target=self._load, args=(slot,), name=name, daemon=True).start()
        except RuntimeError as error:  # no thread to be had: nobody may wait for this load
            slot.ready.set_exception(self._failed(slot, error))

    def _refuse(self, key: Key, *, even_so: bool) -> None:
        if self._closed:
            raise ModelUnavailable("This process is shutting down. Try again; another one answers.")
        failure = self._failures.get(key)
        if failure is not None and self._clock() < failure.until and not even_so:
            raise ModelUnavailable(failure.error.message) from failure.error

    def _released(self, slot: _Slot[R]) -> None:
        with self._changed:
            slot.leases -= 1
            victims: list[R] = []
            if slot.leases == 0:
                self._changed.notify_all()
                victims = self._gone(slot) if slot.leaving else self._over_budget()
        _close_all(victims)

    def _load(self, slot: _Slot[R]) -> None:
        with self._turns:
            try:
                self._make_room(slot)
                model = self._load_version(slot.version)
            except Exception as error:  # noqa: BLE001 - every kind must reach those who wait
                outcome: R | ModelUnavailable = self._failed(slot, error)
            else:
                outcome = self._measured(slot, model)
        # Outside the turn: callbacks of those who waited run here, and may take their time.
        if isinstance(outcome, ModelUnavailable):
            slot.ready.set_exception(outcome)
        else:
            slot.ready.set_result(outcome)
            self._settle(slot)

    def _make_room(self, slot: _Slot[R]) -> None:
        """Reserve the planned bytes, closing idle models, waiting a little for those in use."""
        planned = slot.version.resident_bytes
        victims: list[R] = []

        def fits() -> bool:
            victims.extend(self._over_budget(planned))
            return self._used + planned <= self._budget

        with self._changed:
            if planned > self._budget and not slot.must_load:
                raise _too_large(slot.version, planned, self._budget)
            enough = fits() or slot.must_load
            if not enough:
                enough = self._changed.wait_for(fits, self._room_seconds) or slot.must_load
            if enough:
                self._account(slot, planned)
        _close_all(victims)
        if not enough:
            raise ModelUnavailable(
                "All memory for models is in use by running calls. Try again in a moment."
            )

    def _measured(self, slot: _Slot[R], model: R) -> R | ModelUnavailable:
        size = model.resident_bytes
        with self._changed:
            fits = size <= self._budget or slot.must_load
            if fits:
                self._account(slot, size)
                slot.model = model
                self._failures.pop(_key(slot.version), None)
        if fits:
            return model
        _close_all([model])
        return self._failed(slot, _too_large(slot.version, size, self._budget))

    def _settle(self, slot: _Slot[R]) -> None:
        """Bring the pool back under its budget now that the true size is known."""
        with self._changed:
            self._changed.notify_all()
            victims = self._gone(slot) if slot.leaving and slot.leases == 0 else []
            victims += self._over_budget()
        _close_all(victims)

    def _failed(self, slot: _Slot[R], error: Exception) -> ModelUnavailable:
        version = slot.version
        log.error("%s/%s could not be loaded", version.model, version.number, exc_info=error)
        own = error.message if isinstance(error, PlatformError) else "It could not be loaded."
        refusal = ModelUnavailable(
            f"Version {version.number} of `{version.model}` is not available here: {own} It is "
            "tried again by itself.",
        )
        refusal.__cause__ = error
        key = _key(version)
        with self._changed:
            times = self._failures[key].times + 1 if key in self._failures else 1
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(times - 1, 10))
            self._failures[key] = _Failure(refusal, times, self._clock() + pause)
            self._account(slot, 0)
            if self._slots.get(key) is slot:
                del self._slots[key]
            self._changed.notify_all()
        return refusal

    # Below: called with the lock held; what they return is closed after it was given up.

    def _account(self, slot: _Slot[R], size: int) -> None:
        self._used += size - slot.bytes
        slot.bytes = size

    def _over_budget(self, planned: int = 0) -> list[R]:
        victims: list[R] = []
        if self._used + planned <= self._budget:
            return victims
        for key, slot in tuple(self._slots.items()):
            if slot.leases == 0 and slot.model is not None and key not in self._pinned:
                victims += self._retire(slot)
                if self._used + planned <= self._budget:
                    break
        return victims

    def _retire(self, slot: _Slot[R]) -> list[R]:
        self._slots.pop(_key(slot.version), None)
        slot.leaving = True  # its bytes count until it is gone
        return self._gone(slot) if slot.leases == 0 else []

    def _gone(self, slot: _Slot[R]) -> list[R]:
        if slot.gone or slot.model is None:  # closed already, or loading: its loader settles it
            return []
        slot.gone = True
        self._account(slot, 0)
        return [slot.model]


def _key(version: VersionBody) -> Key:
    return version.model, version.number, version.sha256


def _too_large(version: VersionBody, size: int, budget: int) -> ModelUnavailable:
    return ModelUnavailable(
        f"It needs {size / 2**20:.0f} MB, and this process may hold {budget / 2**20:.0f} MB of "
        f"models. An operator can raise the limit.",
        model=version.model,
    )


def _close_all(models: Iterable[Resident]) -> None:
    for model in models:
        try:
            model.close()
        except Exception:  # a model that cannot be closed must not cost its last caller the answer
            log.exception("A model could not be closed.")
