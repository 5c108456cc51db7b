"""The agent: changes, artifacts and records between the database and a node's files."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from apps.accounts.snapshot import Role
from apps.core import snapshot, storage
from apps.core.models import SnapshotClock
from apps.core.snapshot_file import SnapshotReader, SnapshotWriter
from apps.inference import agent as module
from apps.inference.agent import Agent, Round, only_agent
from apps.inference.models import Prediction, WorkerStatus
from apps.inference.node import LoadedVersion, Node, WorkerReport
from apps.inference.worker_status import Board
from apps.registry.models import ModelVersion, Release
from apps.registry.services import lifecycle, releases
from tests.factories.accounts import SYSTEM, make_key, make_member, make_team
from tests.factories.registry import endpoint_of, make_model, make_release, make_version, tiny_onnx
from tests.factories.serving import ServingNode, ask

ROOT = Path(__file__).parents[3]


class Files:
    """A node's folder and its agent, whose downloads a test can spoil."""

    def __init__(self, folder: Path) -> None:
        self.node = Node(folder / "serving")
        self.spool = folder / "spool"
        self.now = 0.0
        self.fetched: list[str] = []
        self.trouble: Exception | None = None
        self.content: bytes | None = None
        self.agent = self.fresh()

    def fresh(self, **more: Any) -> Agent:
        return Agent(self.node, self.spool, fetch=self._fetch, clock=lambda: self.now, **more)

    def _fetch(self, name: str, target: Path) -> str:
        self.fetched.append(name)
        if self.trouble is not None:
            target.write_bytes(b"half of")
            raise self.trouble
        if self.content is not None:
            target.write_bytes(self.content)
            return hashlib.sha256(self.content).hexdigest()
        return storage.fetch(name, target)

    def kinds(self) -> dict[str, set[str]]:
        change = SnapshotReader(self.node.folder).read()
        found: dict[str, set[str]] = {}
        for one in change.entries if change else ():
            found.setdefault(one.kind, set()).add(one.key)
        return found

    def present(self) -> set[str]:
        return {path.name for path in self.node.artifacts.glob("*")}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def served(release: Release) -> ModelVersion:
    return ModelVersion.objects.get(
        model=release.endpoint.model, number=release.typed_arms()[0].version
    )


# --- the snapshot --------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_change_is_in_the_file_after_one_round(files: Files) -> None:
    team = make_team()
    key, _ = make_key(team, make_member(team, Role.CONTRIBUTOR))
    make_version(make_model("wine", team=team))
    assert files.agent.poll_once()
    kinds = files.kinds()
    assert key.pk in kinds["key"]
    assert kinds["version"] == {"wine/1"}
    assert "production/wine" in kinds["endpoint"]
    assert not files.agent.poll_once(), "nothing is new"


@pytest.mark.django_db
def test_what_is_dropped_leaves_the_file(files: Files) -> None:
    version = make_version(make_model("wine"))
    files.agent.poll_once()
    lifecycle.archive(version, actor=SYSTEM, reason="old")
    files.agent.poll_once()
    assert "version" not in files.kinds()


@pytest.mark.django_db
def test_a_new_epoch_replaces_everything(files: Files) -> None:
    make_version(make_model("wine"))
    files.agent.poll_once()
    epoch = snapshot.renew_epoch()
    assert files.agent.poll_once()
    assert files.agent.epoch == epoch
    assert files.kinds()["version"] == {"wine/1"}


@pytest.mark.django_db
def test_an_older_database_of_the_same_epoch_changes_nothing(files: Files) -> None:
    make_version(make_model("wine"))
    files.agent.poll_once()
    generation = files.agent.generation
    SnapshotClock.objects.update(generation=1)
    assert not files.agent.poll_once()
    assert files.agent.generation == generation
    assert files.kinds()["version"] == {"wine/1"}


@pytest.mark.django_db
def test_an_empty_database_does_not_wipe_out_what_is_served(files: Files) -> None:
    make_version(make_model("wine"))
    files.agent.poll_once()
    SnapshotClock.objects.all().delete()
    assert not files.agent.poll_once()
    assert files.kinds()["version"] == {"wine/1"}


@pytest.mark.django_db
def test_a_fresh_installation_gets_an_empty_snapshot(files: Files) -> None:
    files.agent.poll_once()
    change = SnapshotReader(files.node.folder).read()
    assert change is not None
    assert change.entries == ()


@pytest.mark.django_db
def test_a_line_torn_by_a_former_agents_death_does_not_spoil_the_next(files: Files) -> None:
    make_version(make_model("wine"))
    files.agent.poll_once()
    with (files.node.folder / "snapshot.jsonl").open("ab") as file:
        file.write(b'1234abcd ["key","torn')
    successor = files.fresh()
    make_version(make_model("iris"))
    successor.poll_once()
    assert files.kinds()["version"] == {"wine/1", "iris/1"}


@pytest.mark.django_db
def test_a_file_that_a_process_distrusts_is_written_afresh(files: Files) -> None:
    snapshot.put("key", "a", {"n": 1})
    files.agent.poll_once()
    file = files.node.folder / "snapshot.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"n":1', b'"n":2'))
    files.agent.poll_once()
    assert file.read_bytes() != whole
    files.node.distrust()
    files.agent.poll_once()
    assert file.read_bytes() == whole
    assert not files.node.distrusted()


@pytest.mark.django_db
def test_a_full_disk_is_survived_without_a_gap(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version(make_model("wine"))
    files.agent.poll_once()
    make_version(make_model("iris"))

    def torn(self: Any, entries: Any) -> None:
        self.generation = entries[-1].generation
        self._state |= {(one.kind, one.key): one for one in entries}
        with self._path.open("ab") as file:
            file.write(b"torn")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as spoiled:
        spoiled.setattr(SnapshotWriter, "append", torn)
        with pytest.raises(OSError, match="No space"):
            files.agent.poll_once()
    files.agent.poll_once()
    assert files.kinds()["version"] == {"wine/1", "iris/1"}


# --- artifacts -----------------------------------------------------------------------------------


@pytest.mark.django_db
def test_artifacts_of_released_versions_come_by_themselves(files: Files) -> None:
    model = make_model("wine")
    first, second = make_version(model), make_version(model, data=tiny_onnx(2.0))
    make_release(second)
    files.agent.poll_once()
    assert files.agent.fetch_once() == 1
    assert files.present() == {second.served_sha256}
    assert files.agent.fetch_once() == 0
    assert first.served_sha256 != second.served_sha256


@pytest.mark.django_db
def test_what_a_process_asks_for_comes_too(files: Files) -> None:
    version = make_version(make_model("wine"))
    files.agent.poll_once()
    files.node.want(version.served_sha256)
    files.node.want("f" * 64)
    files.agent.fetch_once()
    assert files.present() == {version.served_sha256}
    assert files.node.wanted() == frozenset(), "the unknown one is forgotten"


@pytest.mark.django_db
def test_a_file_with_another_digest_never_gets_its_name(files: Files) -> None:
    release = make_release(make_version(make_model("wine")))
    files.agent.poll_once()
    files.content = b"something else"
    assert files.agent.fetch_once() == 0
    assert files.present() == set()
    files.content = None
    assert files.agent.fetch_once() == 0, "it waits before the next try"
    files.now += 2
    assert files.agent.fetch_once() == 1
    assert files.present() == {served(release).served_sha256}


@pytest.mark.django_db
def test_a_store_that_fails_is_asked_again_ever_more_rarely(files: Files) -> None:
    make_release(make_version(make_model("wine")))
    files.agent.poll_once()
    files.trouble = ConnectionError("the store is away")
    times = []
    for second in range(60):
        files.now = float(second)
        before = len(files.fetched)
        files.agent.fetch_once()
        if len(files.fetched) > before:
            times.append(second)
    assert times == [0, 1, 3, 7, 15, 31]
    assert files.present() == set(), "no half file stays"


@pytest.mark.django_db
def test_artifacts_that_nobody_needs_leave_the_longest_unused_first(files: Files) -> None:
    model = make_model("wine")
    versions = [make_version(model, data=tiny_onnx(float(one))) for one in range(4)]
    make_release(versions[0])
    agent = files.fresh(spare_bytes=versions[1].served_size)
    agent.poll_once()
    loaded = LoadedVersion("wine", 2, versions[1].served_sha256, 1, 0, pinned=False)
    files.node.report(WorkerReport(1, agent.epoch, agent.generation, "ready", loaded=(loaded,)))
    for age, version in enumerate(versions):
        files.node.want(version.served_sha256)
        agent.fetch_once()
        path = files.node.artifact(version.served_sha256)
        os.utime(path, (1000 + age, 1000 + age))
    agent.fetch_once()
    assert files.present() == {
        versions[0].served_sha256,  # released
        versions[1].served_sha256,  # loaded by a process
        versions[3].served_sha256,  # unused, but there is room for the newest
    }


# --- roll-out ------------------------------------------------------------------------------------


def test_folders_of_killed_runners_leave_the_temporary_folder(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old, young = tmp_path / "confined-old", tmp_path / "confined-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    files.agent.fetch_once()
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.django_db
def test_a_release_is_rolled_out_when_every_living_process_follows_it(files: Files) -> None:
    release = make_release(make_version(make_model("wine")))
    report: dict[str, Any] = {"epoch": "e", "generation": 1, "state": "ready"}

    def rolled_out() -> bool:
        files.agent.poll_once()
        release.refresh_from_db()
        return release.rolled_out_at is not None

    assert not rolled_out(), "nobody serves"
    files.node.report(WorkerReport(1, **report, routes={"production/wine": release.number}))
    files.node.report(WorkerReport(2, **report, routes={"production/wine": None}))
    assert not rolled_out(), "one of them does not follow yet"
    files.node.report(WorkerReport(2, **report, routes={"production/wine": release.number}))
    assert rolled_out()
    when = release.rolled_out_at
    assert rolled_out()
    assert release.rolled_out_at == when


@pytest.mark.django_db
def test_a_release_is_rolled_out_when_the_workers_of_other_nodes_follow_it_too(
    files: Files,
) -> None:
    release = make_release(make_version(make_model("wine")))
    report: dict[str, Any] = {"epoch": "e", "generation": 1, "state": "ready"}
    follows = {"production/wine": release.number}
    files.node.report(WorkerReport(1, **report, routes=follows))
    there = Board("elsewhere")
    there.show([WorkerReport(1, **report)])
    files.agent.poll_once()
    release.refresh_from_db()
    assert release.rolled_out_at is None
    there.show([WorkerReport(1, **report, routes=follows)])
    files.agent.poll_once()
    release.refresh_from_db()
    assert release.rolled_out_at is not None


@pytest.mark.django_db
def test_a_node_that_fell_silent_does_not_hold_up_a_roll_out(files: Files) -> None:
    release = make_release(make_version(make_model("wine")))
    report: dict[str, Any] = {"epoch": "e", "generation": 1, "state": "ready"}
    files.node.report(WorkerReport(1, **report, routes={"production/wine": release.number}))
    Board("elsewhere").show([WorkerReport(1, **report)])
    WorkerStatus.objects.update(seen_at=timezone.now() - timedelta(minutes=1))
    files.agent.poll_once()
    release.refresh_from_db()
    assert release.rolled_out_at is not None


@pytest.mark.django_db
def test_a_process_that_fell_silent_does_not_hold_up_a_roll_out(files: Files) -> None:
    release = make_release(make_version(make_model("wine")))
    report: dict[str, Any] = {"epoch": "e", "generation": 1, "state": "ready"}
    files.node.report(WorkerReport(1, **report, routes={"production/wine": release.number}))
    files.node.report(WorkerReport(2, **report))
    os.utime(files.node.workers / "2.json", (1, 1))
    files.agent.poll_once()
    release.refresh_from_db()
    assert release.rolled_out_at is not None


@pytest.mark.django_db
def test_a_later_release_is_rolled_out_too(files: Files) -> None:
    version = make_version(make_model("wine"))
    report: dict[str, Any] = {"epoch": "e", "generation": 1, "state": "ready"}
    for _ in range(2):
        release = releases.make_release(
            endpoint_of(version.model), version=1, reason="again", actor=SYSTEM
        )
        files.node.report(WorkerReport(1, **report, routes={"production/wine": release.number}))
        files.agent.poll_once()
        release.refresh_from_db()
        assert release.rolled_out_at is not None


# --- the record ----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_what_a_process_recorded_reaches_the_database(node: ServingNode) -> None:
    from django.test import Client

    headers = {"X-API-Key": node.wine()}
    body = ask([[1, 2, 3, 4]])
    reply = Client().post(
        "/api/v1/predict/wine", body, content_type="application/json", headers=headers
    )
    node.records()
    agent = Agent(node.node, node.spool)
    assert agent.ship_once().rows == 1
    row = Prediction.objects.get(pk=reply.json()["prediction_id"])
    assert (row.model, row.version, row.status) == ("wine", 1, "ok")
    assert agent.ship_once().rows == 0
    assert abs((timezone.now() - row.ts).total_seconds()) < 60


# --- its life ------------------------------------------------------------------------------------


def test_a_round_goes_on_through_errors_and_tells_of_changes_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    troubles: list[Exception | None] = [OperationalError("away")] * 3 + [None, None]
    stop = threading.Event()

    def act() -> None:
        trouble = troubles.pop(0)
        if not troubles:
            stop.set()
        if trouble is not None:
            raise trouble

    one = Round("looking", act, stop, 0.001)
    with caplog.at_level("INFO", logger=module.__name__):
        one.run()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert one.state == "ok"


def test_a_round_leaves_out_the_words_of_an_error_that_may_quote_a_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def act() -> None:
        raise ValueError("cannot use 'Lovelace'")

    one = Round("shipping", act, threading.Event(), 0.5)
    assert not one.turn()
    assert "Lovelace" not in caplog.records[0].getMessage() + one.state
    assert one.state == "ValueError"


def test_the_pause_of_a_failing_round_grows_to_two_seconds() -> None:
    one = Round("looking", lambda: None, threading.Event(), 0.5)
    pauses, pause = [], 0.5
    for _ in range(4):
        pause = one._next_pause(pause, failed=True)
        pauses.append(pause)
    assert pauses == [1.0, 2.0, 2.0, 2.0]
    assert one._next_pause(pause, failed=False) == 0.5


def test_a_second_agent_waits_and_says_so(tmp_path: Path) -> None:
    node = Node(tmp_path)
    said: list[str] = []
    stop = threading.Event()
    with only_agent(node, stop, said.append) as alone:
        assert alone
        stop.set()
        with only_agent(node, stop, said.append) as also:
            assert not also
    assert str(os.getpid()) in said[0]
    with only_agent(node, threading.Event(), said.append) as again:
        assert again


def test_sigterm_ends_the_agent_with_status_0(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "MLP_DATA_DIR": str(tmp_path),
        "MLP_ENV_FILE": "0",
        "DATABASE_URL": "",
        "DJANGO_SETTINGS_MODULE": "mlplatform.settings.dev",
    }
    command = [sys.executable, str(ROOT / "manage.py"), "agent"]
    # No table is there: every round fails, and the agent lives.
    running = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE)
    try:
        assert running.stderr is not None
        seen = b""
        while b"following the database fails" not in seen:
            line = running.stderr.readline()
            assert line, seen.decode()
            seen += line
        assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
        assert running.returncode == 0
        assert (tmp_path / "serving" / "agent.json").exists()
    finally:
        running.kill()
        running.wait()
        shutil.rmtree(tmp_path, ignore_errors=True)
