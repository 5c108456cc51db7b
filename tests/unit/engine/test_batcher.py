"""Runs of one model: neighbours are safe, queues are bounded, deadlines hold."""

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from apps.inference.engine.batcher import Batcher, Ran, sample_tensors
from apps.inference.engine.errors import DeadlinePassed, ModelFailed, ModelUnavailable, Overloaded
from apps.inference.engine.types import TensorInputs, Tensors
from apps.inference.engine.validate import tensors_of
from apps.registry.signature import Dtype, Signature, TensorSpec
from tests.fakes.bodies import FOUR_FLOATS
from tests.fakes.runtime import FakeModel

SOON = 30.0


def rows(*values: float) -> Tensors:
    return {"x": np.array([[value] * 4 for value in values], dtype=np.float32)}


def later() -> float:
    return time.monotonic() + SOON


def ask(batcher: Batcher, *values: float, deadline: float | None = None) -> Future[Ran]:
    return batcher.submit(rows(*values), len(values), later() if deadline is None else deadline)


def sums(future: Future[Ran]) -> list[float]:
    return [float(one) for one in future.result(timeout=SOON).outputs["y"][:, 0]]


class Held:
    """A batcher whose model is held in a first run, so that whatever comes now must wait."""

    def __init__(self, signature: Signature = FOUR_FLOATS, **settings: float) -> None:
        self.model = FakeModel(signature)
        self.batcher = Batcher(self.model, signature, **settings)  # type: ignore[arg-type]
        self.model.go.clear()
        self.first = ask(self.batcher, 0.0)
        assert self.model.entered.wait(SOON)

    def go(self) -> None:
        self.model.go.set()
        self.first.result(timeout=SOON)


def test_calls_that_wait_share_the_next_run_and_get_their_own_rows() -> None:
    held = Held()
    one, two, three = (
        ask(held.batcher, 1.0),
        ask(held.batcher, 2.0, 3.0),
        ask(held.batcher, 4.0),
    )
    held.go()
    assert (sums(one), sums(two), sums(three)) == ([4.0], [8.0, 12.0], [16.0])
    assert held.model.runs == [1, 4]
    assert two.result().batch_rows == 4
    held.batcher.close()


def test_a_joined_run_is_bounded_by_rows() -> None:
    held = Held(max_batch_rows=3)
    asked = [ask(held.batcher, 1.0, 1.0) for _ in range(3)]
    held.go()
    assert [sums(one) for one in asked] == [[4.0, 4.0]] * 3
    assert held.model.runs == [1, 2, 2, 2]
    held.batcher.close()


def test_a_leaver_does_not_disturb_its_batch() -> None:
    held = Held()
    stays, leaves, also_stays = (ask(held.batcher, value) for value in (1.0, 2.0, 3.0))
    assert leaves.cancel()
    held.go()
    assert (sums(stays), sums(also_stays)) == ([4.0], [12.0])
    assert held.model.runs == [1, 2]
    held.batcher.close()


def test_only_the_culprit_of_a_failing_batch_gets_the_error() -> None:
    held = Held()
    held.model.fail_on = 2.0
    good, culprit, also_good = (ask(held.batcher, value) for value in (1.0, 2.0, 3.0))
    held.go()
    assert (sums(good), sums(also_good)) == ([4.0], [12.0])
    with pytest.raises(ModelFailed) as caught:
        culprit.result(timeout=SOON)
    assert "does not like" not in caught.value.message
    assert isinstance(caught.value.__cause__, ValueError)
    held.batcher.close()


def test_a_late_caller_is_told_so_and_is_not_run() -> None:
    held = Held()
    late = ask(held.batcher, 1.0, deadline=time.monotonic() - 1)
    good = ask(held.batcher, 2.0)
    held.go()
    assert sums(good) == [8.0]
    with pytest.raises(DeadlinePassed):
        late.result(timeout=SOON)
    assert held.model.runs == [1, 1]
    held.batcher.close()


def test_a_neighbour_in_a_hurry_does_not_shorten_the_run_of_the_others() -> None:
    held = Held()
    patient = later() + 100
    ask(held.batcher, 1.0, deadline=later())
    ask(held.batcher, 2.0, deadline=patient)
    held.go()
    held.batcher.submit(rows(1.0), 1, later()).result(timeout=SOON)
    assert held.model.deadlines[1] == patient
    held.batcher.close()


def test_a_full_queue_refuses_at_once() -> None:
    held = Held(max_waiting=2)
    waiting = [ask(held.batcher, 1.0), ask(held.batcher, 1.0)]
    with pytest.raises(Overloaded) as caught:
        ask(held.batcher, 1.0)
    assert caught.value.retryable
    held.go()
    assert [sums(one) for one in waiting] == [[4.0], [4.0]]
    held.batcher.close()


def test_leavers_and_latecomers_make_room_in_a_full_queue() -> None:
    held = Held(max_waiting=2)
    ask(held.batcher, 1.0).cancel()
    late = ask(held.batcher, 1.0, deadline=time.monotonic() - 1)
    good = ask(held.batcher, 5.0)
    with pytest.raises(DeadlinePassed):
        late.result(timeout=SOON)
    held.go()
    assert sums(good) == [20.0]
    held.batcher.close()


def test_rows_of_different_shape_are_not_joined() -> None:
    free = Signature(
        (TensorSpec("x", Dtype.FLOAT32, (-1, -1)),), (TensorSpec("y", Dtype.FLOAT32, (-1, 1)),)
    )
    held = Held(free)
    short = held.batcher.submit({"x": np.ones((1, 2), dtype=np.float32)}, 1, later())
    long = held.batcher.submit({"x": np.ones((1, 3), dtype=np.float32)}, 1, later())
    held.go()
    assert (sums(short), sums(long)) == ([2.0], [3.0])
    held.batcher.close()


@pytest.mark.parametrize(
    "alone",
    [
        Signature(FOUR_FLOATS.inputs, FOUR_FLOATS.outputs, batchable=False),
        Signature(FOUR_FLOATS.inputs, (TensorSpec("y", Dtype.FLOAT32, (1, 1)),)),
    ],
)
def test_what_may_not_be_joined_runs_alone(alone: Signature) -> None:
    held = Held(alone)
    asked = [ask(held.batcher, 1.0) for _ in range(3)]
    held.go()
    for one in asked:
        one.result(timeout=SOON)
    assert held.model.runs == [1, 1, 1, 1]
    held.batcher.close()


def test_an_idle_model_with_short_runs_is_run_by_its_caller() -> None:
    model = FakeModel(FOUR_FLOATS)
    batcher = Batcher(model, FOUR_FLOATS, inline_below_ms=10_000)
    batcher.warm()
    done = ask(batcher, 1.0)
    assert done.done()
    assert model.threads[-1] == threading.get_ident()
    batcher.close()


def test_a_model_with_long_runs_never_holds_up_its_caller() -> None:
    model = FakeModel(FOUR_FLOATS)
    batcher = Batcher(model, FOUR_FLOATS, inline_below_ms=0.0)
    batcher.warm()
    model.go.clear()
    asked = ask(batcher, 1.0)  # would never return if it ran here
    assert not asked.done()
    model.go.set()
    assert sums(asked) == [4.0]
    assert threading.get_ident() not in model.threads
    batcher.close()


def test_a_busy_model_is_not_run_by_a_second_caller() -> None:
    held = Held(inline_below_ms=10_000)
    asked = ask(held.batcher, 1.0)
    assert not asked.done()
    held.go()
    assert sums(asked) == [4.0]
    held.batcher.close()


def test_a_run_that_loses_rows_is_the_models_failure() -> None:
    model = FakeModel(FOUR_FLOATS)
    batcher = Batcher(model, FOUR_FLOATS)
    model._sums = lambda inputs, rows: {"y": np.zeros((rows + 1, 1))}  # type: ignore[method-assign]
    with pytest.raises(ModelFailed):
        ask(batcher, 1.0).result(timeout=SOON)
    batcher.close()


def test_closing_refuses_who_waits_and_closes_the_model_after_its_run() -> None:
    held = Held()
    waiting = ask(held.batcher, 1.0)
    held.batcher.close()
    with pytest.raises(ModelUnavailable):
        waiting.result(timeout=SOON)
    assert held.model.closed == 0
    held.model.go.set()
    assert sums(held.first) == [0.0]
    thread = held.batcher._thread
    assert thread is not None
    thread.join(SOON)
    assert not thread.is_alive()
    assert held.model.closed >= 1
    assert not held.model.closed_while_running
    with pytest.raises(ModelUnavailable):
        ask(held.batcher, 1.0)


def test_closing_an_idle_batcher_closes_its_model_at_once() -> None:
    model = FakeModel(FOUR_FLOATS)
    batcher = Batcher(model, FOUR_FLOATS)
    batcher.close()
    assert model.closed == 1


def test_a_batcher_may_be_closed_from_the_callback_of_its_own_run() -> None:
    model = FakeModel(FOUR_FLOATS)
    batcher = Batcher(model, FOUR_FLOATS, inline_below_ms=0.0)
    closed = threading.Event()
    model.go.clear()
    asked = ask(batcher, 1.0)

    def leave(_: Future[Ran]) -> None:
        batcher.close()
        closed.set()

    asked.add_done_callback(leave)
    model.go.set()
    assert closed.wait(SOON)
    assert batcher._thread is not None
    batcher._thread.join(SOON)
    assert model.closed >= 1
    assert not model.closed_while_running


def test_a_warming_that_fails_does_not_matter() -> None:
    model = FakeModel(FOUR_FLOATS, fail_on=0.0)
    batcher = Batcher(model, FOUR_FLOATS)
    batcher.warm()
    assert sums(ask(batcher, 1.0)) == [4.0]
    batcher.close()


def test_a_sample_fits_its_signature() -> None:
    wide = Signature(
        (
            TensorSpec("a", Dtype.FLOAT32, (-1, -1), minimum=3.0),
            TensorSpec("b", Dtype.STRING, (-1, 2), categories=("u", "v")),
            TensorSpec("c", Dtype.INT8, (-1,), maximum=-2),
            TensorSpec("d", Dtype.BOOL, (-1, 1)),
        ),
        FOUR_FLOATS.outputs,
    )
    assert tensors_of(TensorInputs(sample_tensors(wide)), wide, max_rows=1).rows == 1


def test_many_callers_at_once_all_get_their_own_answer() -> None:
    batcher = Batcher(FakeModel(FOUR_FLOATS), FOUR_FLOATS, max_waiting=1000, inline_below_ms=5.0)
    barrier = threading.Barrier(8)
    wrong: list[float] = []

    def call(number: int) -> None:
        barrier.wait(SOON)
        for turn in range(100):
            value = float(number * 100 + turn)
            if sums(ask(batcher, value)) != [4 * value]:
                wrong.append(value)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert wrong == []
    batcher.close()
