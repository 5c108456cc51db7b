"""The whole path of a prediction: route, validate, look up, pin, gather, run, note, answer.

Only this module knows the order. A call moves forward through ``_begin``, ``_gather`` and
``_settle``; each continues the one before it, at once when nothing has to be waited for, else in
the thread of whoever was waited for. Everything that reached a version is noted in ``_settle`` or
``_left``, an error exactly like a success, and exactly once.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from apps.core import ids
from apps.core.errors import PlatformError, RateLimited
from apps.inference.engine.batcher import Batcher, Ran
from apps.inference.engine.cache import AnswerCache, CacheKey, cache_key
from apps.inference.engine.errors import DeadlinePassed, SpoolFull
from apps.inference.engine.journal import Journal, PredictionRecord
from apps.inference.engine.pool import Lease, ModelPool
from apps.inference.engine.redact import (
    NOT_TOLD,
    RecordRules,
    keeps_whole,
    recorded_client_id,
    recorded_inputs,
    recorded_outputs,
    recorded_unit,
)
from apps.inference.engine.routing import Route, Routes, resolve
from apps.inference.engine.types import (
    ImageInputs,
    PredictAnswer,
    PredictCall,
    RowInputs,
    Timing,
)
from apps.inference.engine.validate import Checked, tensors_of
from apps.registry.snapshot import FullSpool

log = logging.getLogger(__name__)

OK = "ok"
LEFT = "caller_left"
# What a caller at its deadline still waits for an answer that is being written down right now.
WRITING_SECONDS = 1.0
CAUSE_CHARACTERS = 500


def epoch_ms() -> int:
    """Read the wall's clock in whole milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class _Prediction:
    """One call on its way; each step fills in what it found."""

    call: PredictCall
    id: str
    ts_ms: int
    started: float
    deadline: float
    answer: "Future[PredictAnswer]" = field(default_factory=Future)
    route: Route | None = None
    checked: Checked | None = None
    key: CacheKey | None = None
    lease: Lease[Batcher] | None = None
    ran: "Future[Ran] | None" = None
    cached: bool = False


class Engine:
    """Answers predictions from memory; one per process, built after the fork."""

    def __init__(
        self,
        *,
        pool: ModelPool[Batcher],
        cache: AnswerCache,
        journal: Journal,
        rules: RecordRules,
        routes: Routes | None = None,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = epoch_ms,
        new_id: Callable[[int], str] = ids.new_id,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            pool: Where models are leased.
            cache: Answers to equal questions, for models that ask for it.
            journal: Keeps a record of every call that reached a version.
            rules: What a record may hold.
            routes: Where calls go until ``use`` says otherwise.
            clock: Seconds of the same clock as the calls' deadlines.
            now_ms: Unix milliseconds.
            new_id: Makes a prediction id from its millisecond.
            trace: Told the name of each stage as it ends, for a benchmark.
        """
        self._pool = pool
        self._cache = cache
        self._journal = journal
        self._rules = rules
        self._routes = routes or Routes()
        self._clock = clock
        self._now_ms = now_ms
        self._new_id = new_id
        self._trace = trace

    @property
    def routes(self) -> Routes:
        """The routes that the next call follows."""
        return self._routes

    def use(self, routes: Routes) -> None:
        """Follow other routes from the next call on; those on their way keep theirs."""
        self._routes = routes

    def predict(self, call: PredictCall) -> PredictAnswer:
        """Answer a call, waiting until its deadline at the most.

        Raises:
            PlatformError: Why there is no answer.
        """
        one = self._begin(call)
        try:
            return one.answer.result(timeout=max(0.0, one.deadline - self._clock()))
        except TimeoutError as error:
            if one.answer.cancel():
                raise _late() from error
        try:  # whoever ran the model is writing the record this moment
            return one.answer.result(timeout=WRITING_SECONDS)
        except TimeoutError as error:
            raise _late() from error

    def submit(self, call: PredictCall) -> "Future[PredictAnswer]":
        """Start a call; never waits for a load or a long run, and every error is in the future.

        A caller who no longer waits cancels the future: that is noted, and its row is not run.
        """
        return self._begin(call).answer

    # --- The path ---

    def _begin(self, call: PredictCall) -> _Prediction:
        ts_ms = self._now_ms()
        one = _Prediction(call, self._new_id(ts_ms), ts_ms, self._clock(), call.deadline)
        try:
            one.route = route = resolve(self._routes, call, one.id)
            one.deadline = min(
                call.deadline, one.started + route.endpoint.settings.deadline_seconds
            )
            self._passed("route")
            one.checked = tensors_of(
                call.inputs,
                route.version.signature,
                max_rows=call.max_rows,
                seconds=one.deadline - self._clock(),
            )
            if call.admit is not None:
                call.admit(one.checked.rows)
            self._passed("validate")
            found = self._look_up(one, route, one.checked)
            self._passed("look_up")
            if found is not None:
                self._settle(one, found)
                return one
            one.lease = self._pool.lease(route.version)
            self._passed("pin")
            one.lease.when_ready(partial(self._gather, one, one.checked))
            if not one.answer.done():
                one.answer.add_done_callback(partial(self._left, one))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is noted and handed on
            self._settle(one, error)
        return one

    def _gather(self, one: _Prediction, checked: Checked, ready: "Future[Batcher]") -> None:
        try:
            ran = ready.result().submit(checked.tensors, checked.rows, one.deadline)
            one.ran = ran
            self._passed("gather")
            if one.answer.cancelled():  # it left while the model was loading
                ran.cancel()
        except Exception as error:  # noqa: BLE001 - the same
            self._settle(one, error)
            return
        ran.add_done_callback(partial(self._ran, one))

    def _ran(self, one: _Prediction, ran: "Future[Ran]") -> None:
        self._passed("run")
        if ran.cancelled():
            self._release(one)
            return
        error = ran.exception()
        self._settle(one, ran.result() if error is None else error)

    def _settle(self, one: _Prediction, outcome: Ran | BaseException) -> None:
        """Note what came out and hand it to the caller, unless it left: then that was noted."""
        if not one.answer.set_running_or_notify_cancel():
            self._release(one)
            return
        answer: PredictAnswer | None = None
        error: BaseException | None = None
        try:
            answer = self._answer(one, outcome)
        except Exception as raised:  # noqa: BLE001 - handed to the caller below
            error = raised
        finally:
            error = self._note(one, answer, error) or error
            self._release(one)
        if error is not None or answer is None:
            one.answer.set_exception(error)
        else:
            one.answer.set_result(answer)

    # --- Its steps ---

    def _look_up(self, one: _Prediction, route: Route, checked: Checked) -> Ran | None:
        if route.endpoint.settings.cache_seconds <= 0:
            return None
        parameters = one.call.parameters
        extra = orjson.dumps(parameters, option=orjson.OPT_SORT_KEYS) if parameters else b""
        one.key = cache_key(route.version, checked.tensors, extra)
        outputs = self._cache.get(one.key)
        if outputs is None:
            return None
        one.cached = True
        return Ran(outputs, queue_ms=0.0, inference_ms=0.0, batch_rows=checked.rows)

    def _answer(self, one: _Prediction, ran: Ran | BaseException) -> PredictAnswer:
        if isinstance(ran, BaseException):
            raise ran
        route, checked = one.route, one.checked
        if route is None or checked is None:
            raise RuntimeError("A call was run before it was routed and validated.")
        if one.key is not None and not one.cached:
            seconds = route.endpoint.settings.cache_seconds
            self._cache.put(one.key, ran.outputs, ttl_seconds=seconds)
        total_ms = (self._clock() - one.started) * 1000
        return PredictAnswer(
            prediction_id=one.id,
            model=route.version.model,
            version=route.version.number,
            variant=route.variant,
            outputs=ran.outputs,
            rows=checked.rows,
            by_rows=checked.by_rows,
            cached=one.cached,
            timing=Timing(total=total_ms, queue=ran.queue_ms, inference=ran.inference_ms),
            client_id=one.call.client_id,
        )

    def _left(self, one: _Prediction, answer: "Future[PredictAnswer]") -> None:
        """Note a caller who no longer waits, and give its place in the queue to others."""
        if not answer.cancelled():
            return
        if one.ran is not None:
            one.ran.cancel()
        error = _late() if self._clock() >= one.deadline else None
        self._note(one, None, error)

    def _note(
        self, one: _Prediction, answer: PredictAnswer | None, error: BaseException | None
    ) -> BaseException | None:
        """Write the record; what goes wrong here replaces an answer, never an error."""
        route = one.route
        # Who is over a limit of his own asked for nothing yet; a flood of such must not fill the
        # spool.
        if route is None or isinstance(error, RateLimited):
            return None
        # Only an answer may be refused for want of its record; a lost error is counted.
        policy = route.endpoint.settings.full_spool if answer else FullSpool.BEST_EFFORT
        try:
            self._journal.note(self._record(one, route, answer, error), policy=policy)
        except SpoolFull as full:
            return error or full
        except Exception as wrong:
            log.exception("The record of a prediction could not be written.")
            return error or wrong
        self._passed("note")
        return None

    def _record(
        self,
        one: _Prediction,
        route: Route,
        answer: PredictAnswer | None,
        error: BaseException | None,
    ) -> PredictionRecord:
        call, settings, rules = one.call, route.endpoint.settings, self._rules
        whole = keeps_whole(settings, one.id)
        if answer is None:
            outputs = None
            timing = Timing((self._clock() - one.started) * 1000, 0.0, 0.0)
        else:
            outputs = recorded_outputs(
                answer.outputs,
                rules=rules,
                whole=whole,
                settings=settings,
                signature=route.version.signature,
            )
            timing = answer.timing
        return PredictionRecord(
            id=one.id,
            ts_ms=one.ts_ms,
            model=route.version.model,
            environment=call.environment,
            team_id=route.endpoint.team_id,
            version=route.version.number,
            release=route.release,
            arm=route.arm,
            variant=route.variant,
            experiment=route.experiment,
            unit=recorded_unit(call.unit, settings, rules),
            key_id=call.asker.key_id,
            user_id=call.asker.user_id,
            source=call.source.value,
            status=_status(answer, error),
            rows=_rows(one),
            cached=one.cached,
            total_ms=timing.total,
            queue_ms=timing.queue,
            inference_ms=timing.inference,
            inputs=recorded_inputs(
                call.inputs,
                one.checked.tensors if one.checked else None,
                route.version.signature,
                settings=settings,
                rules=rules,
                whole=whole,
                images=one.checked.images if one.checked else {},
            ),
            outputs=outputs,
            error=_told(error, hides=bool(settings.redact)),
            request_id=call.request_id,
            client_id=recorded_client_id(call.client_id, settings, rules),
            address=call.asker.address,
            agent=call.asker.agent,
        )

    def _release(self, one: _Prediction) -> None:
        if one.lease is not None:
            one.lease.release()

    def _passed(self, stage: str) -> None:
        if self._trace is not None:
            self._trace(stage)


def _status(answer: PredictAnswer | None, error: BaseException | None) -> str:
    if answer is not None:
        return OK
    if error is None:
        return LEFT
    return error.code if isinstance(error, PlatformError) else PlatformError.code


def _told(error: BaseException | None, *, hides: bool) -> str | None:
    """Say to the model's team what went wrong, also in the library's own words.

    Both may quote a value of the question: where fields are redacted, only our own general
    sentences are kept.
    """
    if error is None:
        return None
    if hides:
        if isinstance(error, PlatformError) and not error.problems:
            return error.message
        return NOT_TOLD
    text = error.message if isinstance(error, PlatformError) else type(error).__name__
    cause = error.__cause__
    if cause is None or isinstance(cause, PlatformError):
        return text
    return f"{text} ({type(cause).__name__}: {str(cause)[:CAUSE_CHARACTERS]})"


def _rows(one: _Prediction) -> int:
    """Count the rows of a question, also of one that did not fit the signature."""
    if one.checked is not None:
        return one.checked.rows
    inputs: Any = one.call.inputs
    if isinstance(inputs, ImageInputs):
        return 1
    return len(inputs.rows) if isinstance(inputs, RowInputs) else 0


def _late() -> DeadlinePassed:
    return DeadlinePassed("The answer was not ready in time. Send fewer rows, or try again.")
