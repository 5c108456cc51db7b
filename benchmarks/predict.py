"""What one prediction costs: by stage inside the process, and over HTTP through the DRF view.

Absolute figures drift with the machine, so each is shown with the bare ONNX Runtime call measured
in the same rounds; the ratio is what to compare.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from apps.accounts.callers import Caller
from apps.accounts.counters.node_file import NodeCounters
from apps.accounts.limits import Ceilings, Limiter
from apps.accounts.snapshot import KeyBody, PlanBody
from apps.inference.engine.batcher import Batcher
from apps.inference.engine.cache import AnswerCache
from apps.inference.engine.pipeline import Engine
from apps.inference.engine.pool import ModelPool
from apps.inference.engine.redact import RecordRules
from apps.inference.engine.routing import Routes
from apps.inference.engine.spool import Spool
from apps.inference.engine.types import PredictCall, RowInputs
from apps.inference.runtimes.onnx import OnnxRuntime
from apps.registry.signature import Dtype, Signature, TensorSpec
from apps.registry.snapshot import (
    Arm,
    ArmRole,
    EndpointBody,
    ModelSettings,
    ReleaseBody,
    VersionBody,
)
from benchmarks.client import Load
from benchmarks.faults import warm
from benchmarks.stack import stack, tiny_model

ROUNDS = 5
CALLS = 2000
HTTP_SECONDS = 10.0
ROW = [1.0, 2.0, 3.0, 4.0]


class Stages:
    """Adds up the microseconds between the marks of one call."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(list)
        self.last = 0.0

    def begin(self) -> None:
        self.last = time.perf_counter()

    def mark(self, stage: str) -> None:
        now = time.perf_counter()
        self.spent[stage].append((now - self.last) * 1e6)
        self.last = now


def engine_on(folder: Path, stages: Stages | None) -> tuple[Engine, Callable[[], None]]:
    """Build an engine with every duty on, around the tiny model; return it and its end."""
    file = folder / "tiny.onnx"
    file.write_bytes(tiny_model(0))
    signature = Signature(
        (TensorSpec("x", Dtype.FLOAT32, (-1, 4)),), (TensorSpec("scores", Dtype.FLOAT32, (-1, 3)),)
    )
    version = VersionBody("tiny", 1, "onnx", "0" * 64, 1, "tiny", 1, signature)
    endpoint = EndpointBody(
        "tiny",
        "production",
        1,
        ReleaseBody(1, (Arm(1, ArmRole.PRIMARY, ((0.0, 1.0),)),)),
        {},
        ModelSettings(),
    )
    pool: ModelPool[Batcher] = ModelPool(
        lambda one: Batcher(OnnxRuntime().load(file, threads=1), one.signature),
        budget_bytes=2**30,
    )
    spool = Spool(folder / "spool")
    engine = Engine(
        pool=pool,
        cache=AnswerCache(2**20),
        journal=spool,
        rules=RecordRules(b"benchmark"),
        routes=Routes.of([endpoint], [version]),
        trace=stages.mark if stages else None,
    )
    pool.ensure(version, deadline=time.monotonic() + 30)

    def end() -> None:
        pool.close()
        spool.close()

    return engine, end


def call() -> PredictCall:
    """Ask for one row."""
    return PredictCall("tiny", "production", RowInputs([ROW]), deadline=time.monotonic() + 10)


def limited(folder: Path) -> Callable[[], object]:
    """Return what counts one call as the door does: guard, enter, spend, headers."""
    limiter = Limiter(NodeCounters(folder / "limits"), ceilings=Ceilings(refused=120))
    plan = PlanBody("large", 60_000_000, 600_000_000, 50_000_000_000)
    key = KeyBody("k", "", 1, 1, (), (), (), None)
    who = Caller(1, "ada", False, {}, frozenset(), key=key, plan=plan)

    def once() -> object:
        limiter.guard("192.0.2.7")
        visit = limiter.enter(who, "192.0.2.7")
        visit.spend(1)
        return visit.headers()

    return once


def in_process() -> None:
    """Measure the engine's path and its stages against the bare run, interleaved."""
    stages = Stages()
    with tempfile.TemporaryDirectory() as name:
        plain, end_plain = engine_on(Path(name), None)
        traced, end_traced = engine_on(Path(name), stages)
        bare = OnnxRuntime().load(Path(name) / "tiny.onnx", threads=1)
        feeds = {"x": np.array([ROW], dtype=np.float32)}
        whole, run, counted = [], [], []
        visits = limited(Path(name))
        for _ in range(ROUNDS):
            counted.append(_microseconds(visits))
            run.append(_microseconds(lambda: bare.predict(feeds, deadline=time.monotonic() + 10)))
            whole.append(_microseconds(lambda: plain.predict(call())))
            for _ in range(CALLS):
                stages.begin()
                traced.predict(call())
        end_plain()
        end_traced()
        bare.close()
    path, alone = statistics.median(whole), statistics.median(run)
    print(f"in process, one row: whole path {path:.0f} us, model alone {alone:.0f} us, ", end="")
    print(f"ratio {path / alone:.1f}")
    limits = statistics.median(counted)
    print(f"  limits of a large plan, headers included {limits:.1f} us, ", end="")
    print(f"{limits / path:.2f} of the path, {limits / alone:.2f} of the model")
    for stage, spent in stages.spent.items():
        print(f"  {stage:<10} {statistics.median(spent):6.1f} us")


def _microseconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    for _ in range(CALLS):
        act()
    return (time.perf_counter() - begun) / CALLS * 1e6


def over_http() -> None:
    """Measure requests a second through gunicorn and the DRF view, two workers."""
    with stack(workers=2) as system:
        system.release("tiny", system.upload("tiny", tiny_model(0)))
        warm(system)
        for connections in (1, 8, 16):
            load = Load(
                url=f"{system.url}/api/v1/predict/tiny",
                headers={"X-API-Key": system.key, "Content-Type": "application/json"},
                body=b'{"instances": [[1, 2, 3, 4]]}',
                connections=connections,
            )
            load.start(at_most_seconds=HTTP_SECONDS)
            ledger = load.wait()
            print(
                f"HTTP, {connections:>2} connections: {len(ledger.answers) / HTTP_SECONDS:.0f} "
                f"requests/s, p50 {ledger.percentile_ms(0.5):.1f} ms, "
                f"p99 {ledger.percentile_ms(0.99):.1f} ms, "
                f"{ledger.broken + sum(ledger.refused.values())} errors"
            )
