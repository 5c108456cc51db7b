"""The whole path of a prediction, with every part real but the model and the journal."""

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from apps.core.errors import PlatformError
from apps.inference.engine.batcher import Batcher
from apps.inference.engine.cache import AnswerCache
from apps.inference.engine.errors import (
    DeadlinePassed,
    ModelFailed,
    ModelUnavailable,
    SignatureMismatch,
    SpoolFull,
    UnknownModel,
)
from apps.inference.engine.pipeline import Engine
from apps.inference.engine.pool import ModelPool
from apps.inference.engine.redact import RecordRules
from apps.inference.engine.routing import Routes
from apps.inference.engine.types import Asker, ColumnInputs, PredictCall, RowInputs, Source
from apps.registry.snapshot import FullSpool, ModelSettings, Redaction, VersionBody
from tests.fakes.bodies import (
    FOUR_FLOATS,
    endpoint_body,
    predict_call,
    primary,
    release_body,
    version_body,
)
from tests.fakes.clock import FakeClock
from tests.fakes.journal import FakeJournal
from tests.fakes.runtime import FakeModel, FakeRuntime

SOON = 30.0


class House:
    """An engine with fakes at its edges."""

    def __init__(self, settings: ModelSettings | None = None, *, inline: bool = False) -> None:
        self.runtime = FakeRuntime(FOUR_FLOATS)
        self.journal = FakeJournal()
        self.cache_clock = FakeClock()
        self.inline = inline
        self.hold_loads = threading.Event()
        self.hold_loads.set()
        self.pool = ModelPool(self._load, budget_bytes=10_000)
        self.stages: list[str] = []
        self.engine = Engine(
            pool=self.pool,
            cache=AnswerCache(1_000_000, clock=self.cache_clock),
            journal=self.journal,
            rules=RecordRules(hmac_key=b"k"),
            trace=self.stages.append,
        )
        self.release(1, settings=settings)

    def release(self, number: int, *, settings: ModelSettings | None = None) -> None:
        endpoint = endpoint_body(
            release_body(primary(number), number=number), settings=settings or ModelSettings()
        )
        self.engine.use(Routes.of([endpoint], [version_body(1), version_body(2)]))

    def _load(self, version: VersionBody) -> Batcher:
        assert self.hold_loads.wait(SOON)
        model = self.runtime.load(Path(version.storage_key), threads=1)
        batcher = Batcher(
            model, version.signature, inline_below_ms=10_000.0 if self.inline else 0.0
        )
        batcher._run_ms = 0.0 if self.inline else None
        return batcher

    def model(self) -> FakeModel:
        """Return the one loaded model, ready to be held."""
        self.pool.ensure(version_body(1), deadline=time.monotonic() + SOON)
        model = self.runtime.models[0]
        model.entered.clear()
        return model

    def settled(self) -> None:
        """Wait until nobody holds a lease."""
        until = time.monotonic() + SOON
        while any(one.leases for one in self.pool.loaded()):
            assert time.monotonic() < until
            threading.Event().wait(0.001)


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.pool.close()


def refusal(house: House, call: PredictCall, kind: type[PlatformError]) -> PlatformError:
    with pytest.raises(kind) as caught:
        house.engine.predict(call)
    return caught.value


@pytest.mark.parametrize("inline", [True, False])
def test_an_answered_call_names_its_version_and_is_in_the_journal_with_the_same_id(
    inline: bool,
) -> None:
    house = House(inline=inline)
    call = predict_call(
        unit="u1", client_id="mine", request_id="r1", asker=Asker(key_id="k1", user_id=3)
    )
    answer = house.engine.predict(call)
    assert answer.outputs["y"].tolist() == [[10.0]]
    assert (answer.model, answer.version, answer.rows, answer.by_rows) == ("wine", 1, 1, True)
    assert (answer.client_id, answer.cached, answer.variant) == ("mine", False, None)
    assert answer.timing.total >= answer.timing.inference >= 0
    (record,) = house.journal.records
    assert record.id == answer.prediction_id
    assert (record.status, record.rows, record.error) == ("ok", 1, None)
    assert (record.team_id, record.version, record.release, record.arm) == (7, 1, 1, "primary")
    assert (record.unit, record.client_id, record.request_id) == ("u1", "mine", "r1")
    assert (record.key_id, record.user_id, record.source) == ("k1", 3, "api")
    assert (record.inputs, record.outputs) == ([[1.0, 2.0, 3.0, 4.0]], {"y": [[10.0]]})
    assert record.total_ms == answer.timing.total
    house.settled()
    house.pool.close()


def test_the_stages_pass_in_their_order(house: House) -> None:
    house.model()
    house.engine.predict(predict_call())
    assert [one for one in house.stages if one != "gather"] == [
        "route",
        "validate",
        "look_up",
        "pin",
        "run",
        "note",
    ]
    assert "gather" in house.stages


def test_an_id_is_a_uuid7_whose_millisecond_is_the_records(house: House) -> None:
    answer = house.engine.predict(predict_call())
    assert re.fullmatch(
        "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        answer.prediction_id,
    )
    milliseconds = int(answer.prediction_id.replace("-", "")[:12], 16)
    assert milliseconds == house.journal.records[0].ts_ms
    assert abs(milliseconds - time.time() * 1000) < 60_000


def test_a_wrong_call_to_a_known_version_is_recorded_with_its_code(house: House) -> None:
    error = refusal(house, predict_call(RowInputs([[1, "x", 3, 4]])), SignatureMismatch)
    assert error.problems[0].pointer == "/instances/0/1"
    (record,) = house.journal.records
    assert (record.status, record.version, record.outputs) == ("signature_mismatch", 1, None)
    assert record.inputs == [[1, "x", 3, 4]]
    assert house.runtime.loads == 0


def test_a_call_that_never_reached_a_version_is_not_recorded(house: House) -> None:
    refusal(house, predict_call(model="beer"), UnknownModel)
    assert house.journal.records == []


def test_a_failing_model_is_recorded_like_a_success_and_with_its_own_words(house: House) -> None:
    house.runtime.fail_on = 9.0
    error = refusal(house, predict_call(RowInputs([[9, 0, 0, 0]])), ModelFailed)
    assert "does not like" not in error.message
    (record,) = house.journal.records
    assert record.status == "model_failed"
    assert record.error is not None
    assert "does not like this input" in record.error
    assert record.inputs == [[9, 0, 0, 0]]
    house.settled()


def test_a_model_that_cannot_be_loaded_is_recorded(house: House) -> None:
    house.runtime.refuse = True
    refusal(house, predict_call(), ModelUnavailable)
    refusal(house, predict_call(), ModelUnavailable)
    assert [one.status for one in house.journal.records] == ["model_unavailable"] * 2
    assert house.runtime.loads == 1


def test_there_is_no_answer_without_its_record(house: House) -> None:
    house.journal.full = True
    refusal(house, predict_call(), SpoolFull)
    house.settled()


def test_best_effort_answers_without_a_record_and_counts_the_loss() -> None:
    house = House(ModelSettings(full_spool=FullSpool.BEST_EFFORT))
    house.journal.full = True
    assert house.engine.predict(predict_call()).rows == 1
    assert house.journal.dropped == 1
    house.pool.close()


def test_a_full_journal_does_not_hide_what_was_wrong_with_a_call(house: House) -> None:
    house.journal.full = True
    refusal(house, predict_call(RowInputs([["x"]])), SignatureMismatch)
    assert house.journal.dropped == 1


def test_an_equal_question_is_answered_from_the_cache_with_its_own_id_and_record() -> None:
    house = House(ModelSettings(cache_seconds=60))
    first = house.engine.predict(predict_call())
    second = house.engine.predict(predict_call(ColumnInputs({"x": [[1, 2, 3, 4]]})))
    assert (first.cached, second.cached) == (False, True)
    assert second.outputs["y"].tolist() == [[10.0]]
    assert second.prediction_id != first.prediction_id
    assert not second.by_rows
    assert [one.cached for one in house.journal.records] == [False, True]
    assert house.journal.records[1].outputs == {"y": [[10.0]]}
    assert len(house.runtime.models[0].runs) == 1
    house.engine.predict(predict_call(parameters={"k": 1}))
    house.cache_clock.advance(61)
    house.engine.predict(predict_call())
    assert [one.cached for one in house.journal.records] == [False, True, False, False]
    house.pool.close()


def test_without_the_setting_nothing_is_cached(house: House) -> None:
    house.engine.predict(predict_call())
    assert not house.engine.predict(predict_call()).cached


def test_a_failed_answer_is_not_cached() -> None:
    house = House(ModelSettings(cache_seconds=60))
    house.runtime.fail_on = 1.0
    refusal(house, predict_call(), ModelFailed)
    house.runtime.models[0].fail_on = None
    assert not house.engine.predict(predict_call()).cached
    house.pool.close()


def test_a_caller_is_answered_at_its_deadline_and_recorded_once(house: House) -> None:
    model = house.model()
    model.go.clear()
    refusal(house, predict_call(deadline=time.monotonic() + 0.05), DeadlinePassed)
    assert [one.status for one in house.journal.records] == ["deadline"]
    model.go.set()
    house.settled()
    assert [one.status for one in house.journal.records] == ["deadline"]


def test_the_models_own_deadline_rules_when_it_is_shorter() -> None:
    house = House(ModelSettings(deadline_seconds=0.05))
    model = house.model()
    model.go.clear()
    refusal(house, predict_call(), DeadlinePassed)
    model.go.set()
    house.settled()
    house.pool.close()


def test_a_deadline_also_ends_the_wait_for_a_load(house: House) -> None:
    house.hold_loads.clear()
    refusal(house, predict_call(deadline=time.monotonic() + 0.05), DeadlinePassed)
    house.hold_loads.set()
    assert house.engine.predict(predict_call()).rows == 1
    house.settled()
    assert [one.status for one in house.journal.records] == ["deadline", "ok"]
    assert house.runtime.models[0].runs == [1]


def test_submitting_never_waits_for_a_load(house: House) -> None:
    house.hold_loads.clear()
    asked = [house.engine.submit(predict_call()) for _ in range(3)]
    assert not any(one.done() for one in asked)
    house.hold_loads.set()
    assert [one.result(timeout=SOON).rows for one in asked] == [1, 1, 1]
    assert house.runtime.loads == 1


def test_a_caller_who_leaves_the_queue_is_recorded_and_its_row_is_not_run(house: House) -> None:
    model = house.model()
    before = sum(model.runs)
    model.go.clear()
    first = house.engine.submit(predict_call())
    assert model.entered.wait(SOON)
    second, third = house.engine.submit(predict_call()), house.engine.submit(predict_call())
    assert second.cancel()
    assert [one.status for one in house.journal.records] == ["caller_left"]
    model.go.set()
    assert first.result(timeout=SOON).rows == third.result(timeout=SOON).rows == 1
    with pytest.raises(CancelledError):
        second.result(timeout=SOON)
    assert sum(model.runs) - before == 2
    house.settled()
    assert sorted(one.status for one in house.journal.records) == ["caller_left", "ok", "ok"]


def test_an_event_loop_can_wait_with_a_deadline(house: House) -> None:
    model = house.model()
    model.go.clear()

    async def ask() -> None:
        asked = house.engine.submit(predict_call(deadline=time.monotonic() + 0.03))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(asked), timeout=0.05)
        model.go.set()
        answered = await asyncio.wrap_future(house.engine.submit(predict_call()))
        assert answered.rows == 1

    asyncio.run(ask())
    house.settled()
    assert sorted(one.status for one in house.journal.records) == ["deadline", "ok"]


def test_a_release_is_followed_by_the_next_call_and_not_by_those_on_their_way(
    house: House,
) -> None:
    model = house.model()
    model.go.clear()
    on_its_way = house.engine.submit(predict_call())
    house.release(2)
    house.pool.drop(version_body(1))
    after = house.engine.predict(predict_call())
    model.go.set()
    assert (on_its_way.result(timeout=SOON).version, after.version) == (1, 2)
    assert not model.closed_while_running


def test_a_redacted_unit_and_field_never_reach_the_journal() -> None:
    house = House(ModelSettings(redact={"unit": Redaction.DROP, "x": Redaction.DROP}))
    house.engine.predict(predict_call(RowInputs([[77, 0, 0, 1]]), unit="secret"))
    refusal(house, predict_call(RowInputs([["77"]]), unit="secret"), SignatureMismatch)
    for record in house.journal.records:
        assert record.unit is None
        assert "77" not in repr((record.inputs, record.error))
    house.pool.close()


def test_a_try_is_recorded_as_one(house: House) -> None:
    answer = house.engine.predict(predict_call(version=2, source=Source.TRY))
    assert answer.version == 2
    (record,) = house.journal.records
    assert (record.arm, record.source) == ("try", "try")


def test_our_own_bug_is_an_error_of_the_call_and_is_recorded(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("bug")

    monkeypatch.setattr("apps.inference.engine.pipeline.recorded_outputs", broken)
    with pytest.raises(KeyError):
        house.engine.predict(predict_call())
    house.settled()
    monkeypatch.setattr("apps.inference.engine.pipeline.tensors_of", broken)
    with pytest.raises(KeyError):
        house.engine.predict(predict_call())
    assert [one.status for one in house.journal.records] == ["internal"]


def test_many_callers_at_once_each_get_their_own_answer_and_record() -> None:
    house = House(inline=True)
    barrier = threading.Barrier(6)
    seen: dict[str, float] = {}

    def call(number: int) -> None:
        barrier.wait(SOON)
        for turn in range(60):
            value = float(number * 60 + turn)
            answer = house.engine.predict(predict_call(RowInputs([[value, 0, 0, 0]])))
            assert answer.outputs["y"].tolist() == [[value]]
            seen[answer.prediction_id] = value

    threads = [threading.Thread(target=call, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 360
    assert {one.id: one.inputs[0][0] for one in house.journal.records} == seen
    house.settled()
    house.pool.close()
