"""Faults under load on the whole platform: what was answered is in the log, once.

The long forms are `python -m benchmarks.faults`; these are the same experiments, shorter.
"""

import os

import pytest

from benchmarks import faults

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.environ.get("DATABASE_URL"),
        reason="these start a PostgreSQL of their own and run once, in the half for PostgreSQL",
    ),
]


def test_no_answered_prediction_is_lost_or_doubled_when_workers_are_killed() -> None:
    assert faults.kill_workers(times=3)


def test_loaded_models_answer_while_the_database_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT_SCALE", "0.1")
    assert faults.stop_database()
