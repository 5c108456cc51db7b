"""Faults under load, with a client's ledger: what was answered must be in the log, once.

    python -m benchmarks.faults kill      # SIGKILL of serving workers, 10 times
    python -m benchmarks.faults database  # PostgreSQL stopped for 60 s * FAULT_SCALE
    python -m benchmarks.faults release   # release and rollback on three workers

Each starts a platform of its own, bounds its load, prints what it saw and fails when a bar is not
met.
"""

import os
import random
import signal
import sys
import time

from benchmarks.client import Ledger, Load
from benchmarks.stack import Stack, stack, tiny_model

RATE = 200.0
SHIP_SECONDS = 60.0


def scale() -> float:
    """Part of the full length that a fault lasts (``FAULT_SCALE``, default 1)."""
    return float(os.environ.get("FAULT_SCALE", "1"))


def load_on(system: Stack, model: str = "tiny", rate: float | None = RATE) -> Load:
    """Aim a paced load at one model."""
    return Load(
        url=f"{system.url}/api/v1/predict/{model}",
        headers={"X-API-Key": system.key, "Content-Type": "application/json"},
        body=b'{"instances": [[1, 2, 3, 4]]}',
        rate=rate,
    )


def warm(system: Stack, model: str = "tiny") -> None:
    """Wait until every serving worker runs the release."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        endpoint = system.call("GET", f"/api/v1/models/{model}/endpoints/production").json()
        if endpoint["release"]["rolled_out_at"]:
            return
        time.sleep(0.2)
    raise RuntimeError(f"Not every worker runs the release of {model}: {endpoint}")


def missing_and_doubled(system: Stack, ledger: Ledger) -> tuple[int, int]:
    """Wait until the log has everything (or time is over); count what it lacks and has twice."""
    ids = {answer.prediction_id for answer in ledger.answers}
    if len(ids) != len(ledger.answers):
        raise RuntimeError("Two answers carried the same id.")
    deadline = time.monotonic() + SHIP_SECONDS
    while True:
        known, rows = system.prediction_counts(ids)
        if known == len(ids) or time.monotonic() > deadline:
            return len(ids) - known, rows - known
        time.sleep(1)


def kill_workers(times: int = 10) -> bool:
    """SIGKILL a serving worker at random moments."""
    with stack(workers=2) as system:
        system.release("tiny", system.upload("tiny", tiny_model(0)))
        warm(system)
        load = load_on(system)
        load.start(at_most_seconds=times * 5 + 20)
        for _ in range(times):
            time.sleep(random.uniform(0.5, 2.5))
            workers = system.workers()
            os.kill(random.choice(workers), signal.SIGKILL)
        time.sleep(2)
        ledger = load.stop()
        missing, doubled = missing_and_doubled(system, ledger)
        print(
            f"kill -9 of a serving worker, {times} times: {len(ledger.answers)} answered, "
            f"{ledger.broken} connections broken, {dict(ledger.refused)} refused; "
            f"{missing} answered ids missing in the log, {doubled} doubled"
        )
        return missing == doubled == 0 and bool(ledger.answers)


def stop_database() -> bool:
    """Stop PostgreSQL under load."""
    seconds = 60 * scale()
    with stack(workers=2) as system:
        assert system.database is not None
        system.release("tiny", system.upload("tiny", tiny_model(0)))
        warm(system)
        load = load_on(system)
        load.start(at_most_seconds=seconds + 60)
        time.sleep(5)
        system.database.stop()
        begun = time.time()
        time.sleep(seconds)
        system.database.start()
        ended = time.time()
        time.sleep(5)
        ledger = load.stop()
        during = sum(begun < answer.at < ended for answer in ledger.answers)
        missing, doubled = missing_and_doubled(system, ledger)
        print(
            f"database stopped for {seconds:.0f} s: {len(ledger.answers)} answered, {during} of "
            f"them meanwhile; {ledger.broken} broken, {dict(ledger.refused)} refused; "
            f"{missing} missing in the log, {doubled} doubled"
        )
        return not (ledger.refused or ledger.broken or missing or doubled) and during > 0


def release_under_load() -> bool:
    """Release and roll back on three workers under load."""
    with stack(workers=3) as system:
        first = system.upload("tiny", tiny_model(0))
        second = system.upload("tiny", tiny_model(5))
        system.release("tiny", first)
        warm(system)
        load = load_on(system)
        load.start(at_most_seconds=60)
        time.sleep(4)
        released = system.release("tiny", second)
        time.sleep(8)
        path = "/api/v1/models/tiny/endpoints/production/rollback"
        system.call("POST", path, json={"reason": "measurement"})
        rolled_back = time.time()
        time.sleep(8)
        ledger = load.stop()
    old_after = [
        answer.at - released
        for answer in ledger.answers
        if answer.version == first and released < answer.at < rolled_back
    ]
    new_after = [
        answer.at - rolled_back
        for answer in ledger.answers
        if answer.version == second and answer.at > rolled_back
    ]
    last_old, last_new = max(old_after, default=0.0), max(new_after, default=0.0)
    versions = {answer.version for answer in ledger.answers}
    print(
        f"three workers, release and rollback: {len(ledger.answers)} answered by versions "
        f"{sorted(versions)}, {ledger.broken} broken, {dict(ledger.refused)} refused; last answer "
        f"of the old version {last_old:.2f} s after the release's 201, {last_new:.2f} s after the "
        f"rollback's; p99 {ledger.percentile_ms(0.99):.1f} ms"
    )
    return (
        not (ledger.refused or ledger.broken)
        and max(last_old, last_new) < 5
        and versions
        == {
            first,
            second,
        }
    )


EXPERIMENTS = {
    "kill": kill_workers,
    "database": stop_database,
    "release": release_under_load,
}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(EXPERIMENTS)
    results = {name: EXPERIMENTS[name]() for name in chosen}
    print(", ".join(f"{name}: {'met' if good else 'NOT MET'}" for name, good in results.items()))
    sys.exit(0 if all(results.values()) else 1)
