"""Shippers that are killed, doubled, or left without a database; in real processes."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection

from tests.factories.inference import record, spooled

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[3]
NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
Child = Callable[..., "subprocess.Popen[str]"]


def started(url: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.apps.inference.shipping_child", *words],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer_of(child: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    said: dict[str, Any] = json.loads(out)
    return said


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A migrated SQLite file to copy; an in-memory database cannot be shared with a child."""
    if connection.vendor != "sqlite":
        return None
    path = tmp_path_factory.mktemp("database") / "empty.sqlite3"
    child = started(f"sqlite:///{path}", "migrate")
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    return path


@pytest.fixture
def child(empty_file: Path | None, tmp_path: Path, transactional_db: None) -> Child:
    """Starts a process on a database of the kind under test."""
    if empty_file is not None:
        shutil.copy(empty_file, tmp_path / "db.sqlite3")
        url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    else:
        at = connection.settings_dict
        login = ":".join(quote(str(at[name]), safe="") for name in ("USER", "PASSWORD") if at[name])
        url = f"postgres://{login}@{at['HOST']}:{at['PORT']}/{at['NAME']}"
    return lambda *words: started(url, *words)


def fill(folder: Path, *, segments: int, each: int) -> list[str]:
    """Spool records over three models, minutes and statuses; return their ids."""
    dice = random.Random(7)
    made = []
    for _ in range(segments):
        made += spooled(
            folder,
            [
                record(
                    ts=NOON + timedelta(milliseconds=dice.randrange(180_000)),
                    model=f"m{dice.randrange(3)}",
                    status=dice.choice(["ok", "ok", "ok", "model_failed"]),
                    total_ms=dice.expovariate(0.5),
                    rows=dice.randrange(1, 9),
                    key_id=dice.choice(["a", "b", None]),
                )
                for _ in range(each)
            ],
        )
    return sorted(one.id for one in made)


def checked(child: Child) -> dict[str, Any]:
    return answer_of(child("check"))


def test_a_death_between_commit_and_unlink_adds_nothing(child: Child, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    made = fill(folder, segments=1, each=300)
    dead = child("ship_and_die_before_unlink", str(folder))
    dead.communicate(timeout=60)
    assert dead.returncode == -9
    assert len(list(folder.iterdir())) == 1
    assert checked(child)["ids"] == made
    (tmp_path / "enough").touch()
    assert answer_of(child("ship", str(folder))) == {"rows": 0, "duplicates": 300}
    after = checked(child)
    assert (after["ids"], after["differences"]) == (made, [])


@pytest.mark.slow
def test_shippers_killed_at_random_lose_nothing_and_count_nothing_twice(
    child: Child, tmp_path: Path
) -> None:
    folder = tmp_path / "spool"
    made = fill(folder, segments=60, each=250)
    dice = random.Random(11)
    kills = 0
    for _ in range(8):
        shipper = child("ship", str(folder))
        before = len(list(folder.iterdir()))
        while shipper.poll() is None and len(list(folder.iterdir())) == before:
            time.sleep(0.002)  # until it is at work: a kill during its imports proves nothing
        time.sleep(dice.random() * 0.1)
        shipper.kill()
        shipper.communicate()
        kills += 1
        if not any(folder.iterdir()):
            break
    assert kills > 1
    (tmp_path / "enough").touch()
    answer_of(child("ship", str(folder)))
    after = checked(child)
    assert after["ids"] == made
    assert (after["twice"], after["rejected"], after["differences"]) == (0, 0, [])


def test_two_shippers_on_one_folder_share_it_without_a_duplicate(
    child: Child, tmp_path: Path
) -> None:
    folder = tmp_path / "spool"
    made = fill(folder, segments=20, each=50)
    (tmp_path / "enough").touch()
    answers = [answer_of(one) for one in [child("ship", str(folder)) for _ in range(2)]]
    assert sum(one["rows"] for one in answers) == 1000
    assert sum(one["duplicates"] for one in answers) == 0
    after = checked(child)
    assert (after["ids"], after["differences"]) == (made, [])


def test_two_shippers_with_copies_of_the_same_files_count_each_record_once(
    child: Child, tmp_path: Path
) -> None:
    first, second = tmp_path / "a" / "spool", tmp_path / "b" / "spool"
    made = fill(first, segments=15, each=100)
    shutil.copytree(first, second)
    for folder in (first, second):
        (folder.parent / "enough").touch()
    both = [child("ship", str(folder)) for folder in (first, second)]
    answers = [answer_of(one) for one in both]
    assert sum(one["rows"] for one in answers) == 1500
    assert sum(one["duplicates"] for one in answers) == 1500
    after = checked(child)
    assert (after["ids"], after["differences"]) == (made, [])


def test_without_a_database_the_error_can_be_retried_and_the_files_stay(tmp_path: Path) -> None:
    spooled(tmp_path, [record()])
    before = sorted(path.name for path in tmp_path.iterdir())
    said = answer_of(
        started("postgres://nobody@127.0.0.1:1/none", "ship_without_database", str(tmp_path))
    )
    assert said == {"code": "log_unavailable", "retryable": True}
    assert sorted(path.name for path in tmp_path.iterdir()) == before
