"""Real processes that count at once, and asks as the limiter makes them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from apps.accounts.limits import MINUTE, Ask, Stage, plan_limits
from apps.accounts.snapshot import PlanBody

ROOT = Path(__file__).resolve().parents[2]
CHILD = ROOT / "tests" / "fakes" / "counting.py"
NOW = 1_000_000.0


def ask(counter: str = "requests:key:k1", **given: Any) -> Ask:
    """Return an ask for one of ten, in the minute of ``NOW``."""
    need = given.pop("need", 1)
    fields: dict[str, Any] = {
        "counter": counter,
        "window": int(NOW // MINUTE),
        "ends": NOW + 30,
        "most": 10,
        "need": need,
        "want": given.pop("want", need),
        "stage": Stage.REQUEST,
    }
    return Ask(**{**fields, **given})


def counted_window() -> int:
    """Return the minute in which ``passed_by_processes`` counts."""
    return plan_limits(PlanBody("counted", 1), "key:counted")[0].window(NOW)


def passed_by_processes(
    place: str, *, processes: int, calls: int, threads: int = 1, **plan: int
) -> list[int]:
    """Let real processes charge one key's calls at once; return how many passed in each."""
    started = [
        subprocess.Popen(
            [
                *(sys.executable, str(CHILD), place, str(calls), str(threads), str(NOW)),
                json.dumps({"name": "counted", **plan}),
            ],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    try:
        for one in started:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in started:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        return [int(one.communicate(timeout=120)[0]) for one in started]
    finally:
        for one in started:
            one.kill()
            one.wait()
