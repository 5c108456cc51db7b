"""The follower: load, then swap; the last good state stays."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.core.errors import PlatformError
from apps.inference.engine.batcher import Batcher
from apps.inference.engine.cache import AnswerCache
from apps.inference.engine.errors import ModelUnavailable, NotReleased
from apps.inference.engine.pipeline import Engine
from apps.inference.engine.pool import ModelPool
from apps.inference.engine.redact import RecordRules
from apps.inference.engine.types import PredictAnswer
from apps.inference.follower import Follower, State
from apps.registry.snapshot import VersionBody
from tests.factories.serving import ServingNode, answering, primary
from tests.fakes.bodies import predict_call
from tests.fakes.clock import FakeClock
from tests.fakes.journal import FakeJournal
from tests.fakes.runtime import FakeModel

WAIT = 10.0


class Room:
    fill = 0.0
    dropped = 0


class Rig:
    """A follower that is moved by hand, and loads that a test holds or lets fail."""

    def __init__(self, folder: Path) -> None:
        self.files = ServingNode(folder)
        self.clock = FakeClock()
        self.room = Room()
        self.held: dict[int, threading.Event] = {}
        self.began: dict[int, threading.Event] = {}
        self.broken: set[int] = set()
        self.cold: set[int] = set()
        self.models: dict[int, FakeModel] = {}
        self.loads: list[int] = []
        self.pool = ModelPool(self._load, budget_bytes=10**6)
        self.engine = Engine(
            pool=self.pool,
            cache=AnswerCache(1000),
            journal=FakeJournal(),
            rules=RecordRules(b"key"),
        )
        self.follower = self._follower()

    def _follower(self) -> Follower:
        return Follower(
            node=self.files.node,
            engine=self.engine,
            pool=self.pool,
            room=self.room,
            poll_seconds=0.01,
            clock=self.clock,
        )

    def _load(self, version: VersionBody) -> Batcher:
        number = version.number
        self.loads.append(number)
        self.began.setdefault(number, threading.Event()).set()
        if number in self.held:
            assert self.held[number].wait(WAIT)
        if number in self.broken:
            raise OSError("the file cannot be read")
        model = FakeModel(version.signature)
        if number in self.cold:
            model.go.clear()
        self.models[number] = model
        return Batcher(model, version.signature)

    def hold(self, number: int) -> None:
        self.held[number] = threading.Event()
        self.began[number] = threading.Event()

    def look_until(self, done: Callable[[], bool]) -> None:
        for _ in range(1000):
            self.follower.look()
            if done():
                return
            self.follower._wake.wait(0.01)
        raise AssertionError("it never came")

    def settle(self) -> None:
        self.look_until(self.follower.caught_up)

    def answer(self, model: str = "wine") -> PredictAnswer:
        return self.engine.predict(predict_call(model=model))

    def close(self) -> None:
        for one in (*self.held.values(), *(model.go for model in self.models.values())):
            one.set()
        self.follower.close()
        self.pool.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def released(rig: Rig, number: int, *, release: int | None = None, **settings: Any) -> None:
    rig.files.version(number, shift=float(number))
    rig.files.endpoint(answering(primary(number), number=release or number), **settings)


def test_the_new_version_answers_only_after_it_is_loaded(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    rig.hold(2)
    released(rig, 2, required=True)
    rig.follower.look()
    assert rig.began[2].wait(WAIT)
    rig.follower.look()
    assert rig.answer().version == 1
    assert not rig.follower.caught_up()
    rig.held[2].set()
    rig.settle()
    assert rig.answer().version == 2
    assert rig.models[2].runs, "it was warmed before the switch"


def test_a_version_that_is_loaded_but_not_yet_warm_does_not_answer(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    rig.cold.add(2)
    released(rig, 2, required=True)
    rig.look_until(lambda: 2 in rig.models and rig.models[2].entered.is_set())
    rig.follower.look()
    assert rig.answer().version == 1
    rig.models[2].go.set()
    rig.settle()
    assert rig.answer().version == 2


def test_a_newer_release_does_not_wait_for_the_load_of_an_older_one(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    rig.hold(2)
    released(rig, 2, required=True)
    rig.follower.look()
    released(rig, 3, required=True)
    rig.settle()
    assert rig.answer().version == 3


def test_a_release_that_does_not_load_leaves_the_old_one_and_is_tried_again(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    rig.broken.add(2)
    released(rig, 2, required=True)
    rig.look_until(lambda: rig.loads.count(2) == 1 and not rig.follower._loading)
    assert "not available" in rig.follower.failures["production/wine"]
    assert rig.answer().version == 1
    assert rig.follower.state() is State.READY
    rig.follower.look()
    assert rig.loads.count(2) == 1, "it waits before the next try"
    rig.broken.clear()
    rig.clock.advance(5)
    rig.settle()
    assert rig.answer().version == 2
    assert not rig.follower.failures


def test_a_first_release_that_does_not_load_never_goes_live_here(rig: Rig) -> None:
    rig.files.endpoint(None, required=True)
    rig.settle()
    rig.broken.add(1)
    released(rig, 1, required=True)
    rig.look_until(lambda: bool(rig.follower.failures) and not rig.follower._loading)
    with pytest.raises(NotReleased):
        rig.answer()
    assert rig.follower.state() is State.READY


def test_a_slow_load_delays_neither_keys_nor_other_endpoints(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    rig.hold(2)
    released(rig, 2, required=True)
    rig.follower.look()
    assert rig.began[2].wait(WAIT)
    rig.files.person()
    key = rig.files.key()
    rig.files.version(3, model="iris", shift=9.0)
    rig.files.endpoint(answering(primary(3)), model="iris", required=True)
    rig.look_until(lambda: rig.pool.is_loaded(rig.engine.routes.versions["iris", 3]))
    assert rig.follower.directory.key(key.split("_")[2]) is not None
    assert rig.answer("iris").version == 3
    assert rig.answer("wine").version == 1


def test_a_call_on_its_way_keeps_its_version_through_the_switch(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    old = rig.models[1]
    old.go.clear()
    old.entered.clear()
    with ThreadPoolExecutor(1) as callers:
        future = callers.submit(rig.answer)
        assert old.entered.wait(WAIT)
        released(rig, 2, required=True)
        rig.files.put("version", "wine/1", None)
        rig.look_until(lambda: ("wine", 1) not in rig.engine.routes.versions)
        assert not old.closed
        old.go.set()
        assert future.result(WAIT).version == 1
    rig.look_until(lambda: bool(old.closed))
    assert not old.closed_while_running


def test_a_rollback_finds_the_old_version_still_loaded(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    released(rig, 2, required=True)
    rig.settle()
    rig.files.endpoint(answering(primary(1), number=3), required=True)
    rig.follower.look()
    assert rig.follower.caught_up()
    assert rig.answer().version == 1
    assert rig.loads == [1, 2]


def test_a_change_of_settings_alone_counts_at_once(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    rig.hold(2)
    rig.files.endpoint(
        answering(primary(1), number=1), required=True, cache_seconds=5, aliases={"champion": 1}
    )
    rig.follower.look()
    endpoint = rig.engine.routes.endpoint("production", "wine")
    assert endpoint is not None
    assert (endpoint.settings.cache_seconds, endpoint.aliases) == (5, {"champion": 1})


def test_what_nobody_uses_here_is_not_loaded_ahead(rig: Rig) -> None:
    released(rig, 1)
    rig.settle()
    assert rig.loads == []
    assert rig.answer().version == 1
    released(rig, 2)
    rig.settle()
    assert rig.loads == [1, 2], "now it is in use here, so the next one is loaded ahead"


def test_a_missing_file_is_asked_for_and_waited_for_without_a_load(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    body = rig.files.version(2, shift=2.0, with_file=False)
    rig.files.endpoint(answering(primary(2), number=2), required=True)
    rig.follower.look()
    assert rig.files.node.wanted() == {body.sha256}
    assert rig.loads == [1]
    assert rig.answer().version == 1
    rig.files.artifact(body, b"whatever; the rig's loader does not read it")
    rig.settle()
    assert rig.answer().version == 2


def test_an_arm_that_the_snapshot_does_not_know_leaves_the_old_route(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    rig.files.endpoint(answering(primary(9), number=2), required=True)
    rig.follower.look()
    assert rig.answer().version == 1
    assert "not in the snapshot" in rig.follower.failures["production/wine"]


def test_an_endpoint_that_is_gone_answers_no_more_and_its_model_leaves(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    rig.files.put("endpoint", "production/wine", None)
    rig.files.put("version", "wine/1", None)
    rig.follower.look()
    with pytest.raises(PlatformError):
        rig.answer()
    assert rig.models[1].closed


def test_a_damaged_file_leaves_everything_as_it_was(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    path = rig.files.node.folder / "snapshot.jsonl"
    with path.open("ab") as file:
        file.write(b"00000000 [1,2,3,4]\n")
    rig.follower.look()
    assert rig.answer().version == 1
    assert rig.follower.caught_up()
    assert rig.files.node.distrusted(), "the agent is asked for another file, once"
    rig.follower.look()
    assert not rig.files.node.distrusted()


def test_an_older_file_is_refused_and_a_new_epoch_is_taken(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    rig.files.writer.replace("epoch-1", [], 1)
    rig.follower.look()
    assert rig.answer().version == 1
    rig.files.writer.replace("epoch-2", [], 1)
    rig.follower.look()
    with pytest.raises(PlatformError):
        rig.answer()


def test_an_entry_that_cannot_be_read_leaves_its_last_good_one(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    rig.files.put("endpoint", "production/wine", {"nonsense": True})
    rig.files.put("version", "wine/1", {"model": "wine"})
    rig.follower.look()
    assert rig.answer().version == 1


def test_a_process_is_ready_only_with_its_required_models_warm(rig: Rig) -> None:
    assert rig.follower.state() is State.STARTING
    rig.hold(1)
    released(rig, 1, required=True)
    rig.follower.look()
    assert rig.follower.state() is State.LOADING
    rig.held[1].set()
    rig.settle()
    assert rig.follower.state() is State.READY
    rig.room.fill = 0.95
    assert rig.follower.state() is State.FULL
    rig.follower.drain()
    assert rig.follower.state() is State.DRAINING


def test_a_new_model_that_does_not_load_takes_no_working_process_out(rig: Rig) -> None:
    released(rig, 1, required=True)
    rig.settle()
    assert rig.follower.state() is State.READY
    rig.broken.add(2)
    rig.files.version(2, model="iris", shift=2.0)
    rig.files.endpoint(answering(primary(2)), model="iris", required=True)
    rig.look_until(lambda: "production/iris" in rig.follower.failures and not rig.follower._loading)
    assert rig.follower.state() is State.READY
    assert rig.answer("wine").version == 1


def test_calls_at_the_start_wait_for_the_load_and_are_not_refused(rig: Rig) -> None:
    rig.hold(1)
    released(rig, 1, required=True)
    rig.follower.look()
    future = rig.engine.submit(predict_call())
    assert not future.done()
    rig.held[1].set()
    assert np.allclose(future.result(WAIT).outputs["scores"], 10.0)


def test_the_report_says_what_runs_here(rig: Rig) -> None:
    released(rig, 1, release=4, required=True)
    rig.settle()
    rig.broken.add(2)
    released(rig, 2, release=5, required=True)
    rig.look_until(lambda: bool(rig.follower.failures) and not rig.follower._loading)
    rig.follower.look()
    (report,) = rig.files.node.living()
    assert report.routes == {"production/wine": 4}
    assert "production/wine" in report.failures
    assert [(one.model, one.version, one.pinned) for one in report.loaded] == [("wine", 1, True)]
    rig.follower.close()
    assert rig.files.node.living() == []


def test_a_required_pair_larger_than_the_budget_still_switches(rig: Rig) -> None:
    rig.pool._budget = 1500
    released(rig, 1, required=True)
    rig.settle()
    released(rig, 2, required=True)
    rig.settle()
    assert rig.answer().version == 2


def test_the_thread_follows_by_itself(rig: Rig) -> None:
    rig.follower.start()
    released(rig, 1, required=True)
    assert rig.follower.wait_ready(WAIT) or rig.follower.state() is State.READY
    for _ in range(500):
        if rig.follower.caught_up() and rig.engine.routes.known("wine"):
            break
        threading.Event().wait(0.01)
    assert rig.answer().version == 1


def test_a_load_that_fails_reaches_its_callers_as_unavailable(rig: Rig) -> None:
    rig.broken.add(1)
    released(rig, 1)
    rig.settle()
    with pytest.raises(ModelUnavailable):
        rig.answer()
