"""What workers run, in the database: written by agents, read by the page that follows a release."""

import socket
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.snapshot import Role
from apps.core.models import SnapshotEntry
from apps.inference import worker_status
from apps.inference.agent import Agent, Round
from apps.inference.models import WorkerStatus
from apps.inference.node import LoadedVersion, Node, WorkerReport
from apps.inference.worker_status import Board, Standing, Worker, node_name, rollout_of
from apps.registry.models import Release
from apps.registry.services import releases
from tests.factories.accounts import PASSWORD, make_member, make_team
from tests.factories.registry import make_model, make_release, make_version

pytestmark = pytest.mark.django_db
KEY = "production/wine"


def loaded(number: int) -> LoadedVersion:
    return LoadedVersion("wine", number, "a" * 64, 1, 0, False)


def report(pid: int = 1, **changed: Any) -> WorkerReport:
    facts: dict[str, Any] = {"epoch": "e", "generation": 10**6, "state": "ready"} | changed
    return WorkerReport(pid, **facts)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board("here", clock=clock)


def rows() -> set[tuple[str, int]]:
    return set(WorkerStatus.objects.values_list("node", "worker"))


# -- writing -------------------------------------------------------------------------------------


def test_a_row_says_what_its_worker_last_said(board: Board) -> None:
    board.show([report(routes={KEY: 1, "staging/wine": None}, loaded=(loaded(1),))])
    row = WorkerStatus.objects.get()
    assert (row.node, row.worker, row.state) == ("here", 1, "ready")
    assert (row.routes, row.loaded, row.failures) == ({KEY: 1}, ["wine/1"], {})
    board.show([report(routes={KEY: 2}, failures={KEY: "no room"})])
    row.refresh_from_db()
    assert (row.routes, row.loaded, row.failures) == ({KEY: 2}, [], {KEY: "no room"})


def test_who_has_gone_has_no_row(board: Board) -> None:
    board.show([report(1), report(2)])
    board.show([report(2)])
    assert rows() == {("here", 2)}
    board.show([])
    assert rows() == set()


def test_a_new_agent_removes_what_the_former_left_of_its_node_and_of_no_other(
    board: Board, clock: Clock
) -> None:
    board.show([report(1)])
    Board("there", clock=clock).show([report(1)])
    Board("here", clock=clock).show([report(2)])
    assert rows() == {("here", 2), ("there", 1)}


def test_without_news_nothing_is_written_until_the_next_sign_of_life(
    board: Board, clock: Clock
) -> None:
    def writes(**changed: Any) -> int:
        with CaptureQueriesContext(connection) as queries:
            board.show([report(**changed)])
        return sum(one["sql"].startswith(("INSERT", "UPDATE", "DELETE")) for one in queries)

    board.show([report()])
    clock.now += 1
    assert writes() == 0
    # What changes with every call is no news.
    assert writes(spool_fill=0.5, dropped=3) == 0
    assert writes(state="full") == 1
    clock.now += worker_status.HEARTBEAT_SECONDS
    assert writes(state="full") == 2
    assert worker_status.HEARTBEAT_SECONDS < worker_status.SILENT_SECONDS / 2


def test_a_sign_of_life_keeps_rows_from_growing_old(board: Board, clock: Clock) -> None:
    board.show([report()])
    WorkerStatus.objects.update(seen_at=timezone.now() - timedelta(minutes=1))
    clock.now += worker_status.HEARTBEAT_SECONDS
    board.show([report()])
    assert WorkerStatus.objects.get().seen_at > timezone.now() - timedelta(seconds=30)


def test_a_lost_node_is_forgotten_by_the_others_after_a_while(board: Board, clock: Clock) -> None:
    Board("lost", clock=clock).show([report(7)])
    age = timedelta(seconds=worker_status.FORGOTTEN_SECONDS - 60)
    WorkerStatus.objects.update(seen_at=timezone.now() - age)
    board.show([report()])
    assert rows() == {("here", 1), ("lost", 7)}
    WorkerStatus.objects.filter(node="lost").update(
        seen_at=timezone.now() - age - timedelta(minutes=2)
    )
    clock.now += worker_status.HEARTBEAT_SECONDS
    board.show([report()])
    assert rows() == {("here", 1)}


def test_a_row_is_bounded_whatever_a_worker_says(board: Board) -> None:
    failures = {f"production/m{number}": "x" * 10_000 for number in range(1000)}
    board.show([report(failures=failures, state="s" * 100)])
    row = WorkerStatus.objects.get()
    assert len(row.failures) == worker_status.MOST_FAILURES
    assert {len(reason) for reason in row.failures.values()} == {worker_status.MOST_CHARACTERS}


def test_after_a_failed_write_everything_is_written_again(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.show([report()])

    def fail(*_: object) -> None:
        raise OperationalError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(Board, "_put", fail)
        with pytest.raises(OperationalError):
            board.show([report(state="full")])
    WorkerStatus.objects.all().delete()  # restored from a backup in the meantime
    board.show([report(state="full")])
    assert WorkerStatus.objects.get().state == "full"


def test_a_database_that_is_away_never_ends_the_agents_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    agent = Agent(node, tmp_path / "spool", name="here")
    node.report(report())
    away = threading.Event()

    def show(board: Board, living: object) -> None:
        if away.is_set():
            raise OperationalError("the database is away")

    monkeypatch.setattr(Board, "show", show)
    tell = Round("telling what workers run", agent.tell_once, threading.Event(), 1.0)
    assert tell.turn()
    away.set()
    assert not tell.turn()
    assert "away" in tell.state
    away.clear()
    assert tell.turn()


def test_the_agent_tells_of_the_living_workers_of_its_node(tmp_path: Path) -> None:
    node = Node(tmp_path / "serving")
    agent = Agent(node, tmp_path / "spool", name="alpha")
    node.report(report(1))
    node.report(report(2))
    agent.tell_once()
    assert rows() == {("alpha", 1), ("alpha", 2)}
    node.leave(1)
    agent.tell_once()
    assert rows() == {("alpha", 2)}


def test_a_running_agent_tells_by_itself_and_stays_out_of_the_other_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(Node(tmp_path / "serving"), tmp_path / "spool")
    told, stop = threading.Event(), threading.Event()
    for name in ("poll_once", "ship_once", "fetch_once"):
        monkeypatch.setattr(agent, name, lambda **_: None)
    monkeypatch.setattr(agent, "_ship_the_rest", lambda: None)

    def tell() -> None:
        told.set()
        raise OperationalError("the database is away")

    monkeypatch.setattr(agent, "tell_once", tell)
    thread = threading.Thread(target=agent.run, args=(stop,), kwargs={"poll_seconds": 0.01})
    thread.start()
    assert told.wait(30)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    seen = agent._node.agent()
    assert seen is not None
    assert seen[0].database == "ok"


def test_two_nodes_of_one_host_have_different_names(tmp_path: Path) -> None:
    assert node_name("", tmp_path / "a") != node_name("", tmp_path / "b")
    assert node_name("rack-7", tmp_path) == "rack-7"
    assert len(node_name("x" * 1000, tmp_path)) == worker_status.NAME_LENGTH


# -- reading -------------------------------------------------------------------------------------


@pytest.fixture
def release() -> Release:
    """Release 2 of wine in production: version 2 after version 1."""
    first = make_version(make_model("wine", team=make_team("blue")))
    make_release(first)
    return make_release(make_version(first.model))


def standing(release: Release, **said: Any) -> Standing:
    Board("here").show([report(**said)])
    (worker,) = rollout_of(release).workers
    return worker.standing


def test_how_far_a_worker_is_follows_from_its_report(release: Release) -> None:
    generation = SnapshotEntry.objects.get(kind="endpoint", key=KEY).generation
    assert standing(release, routes={KEY: 2}, loaded=(loaded(2),)) is Standing.WARM
    assert standing(release, routes={KEY: 2}, loaded=(loaded(1),)) is Standing.READY
    assert standing(release, routes={KEY: 1}) is Standing.LOADING
    assert standing(release, routes={KEY: 1}, generation=generation - 1) is Standing.BEHIND
    assert standing(release, generation=generation) is Standing.LOADING
    failing = {KEY: "It could not be loaded."}
    assert standing(release, routes={KEY: 1}, failures=failing) is Standing.FAILED
    waiting = {KEY: "The file of version 2 is not on this node yet."}
    assert standing(release, routes={KEY: 1}, failures=waiting) is Standing.WAITING


def test_a_failure_is_told_with_its_reason(release: Release) -> None:
    Board("here").show([report(routes={KEY: 1}, failures={KEY: "It needs 9 GB."})])
    (worker,) = rollout_of(release).workers
    assert worker.sentence == "It needs 9 GB."


def test_a_silent_node_is_shown_and_not_counted(release: Release) -> None:
    Board("here").show([report(routes={KEY: 2}, loaded=(loaded(2),))])
    Board("lost").show([report(routes={KEY: 1})])
    WorkerStatus.objects.filter(node="lost").update(
        seen_at=timezone.now() - timedelta(seconds=worker_status.SILENT_SECONDS + 5)
    )
    found = rollout_of(release)
    assert [one.standing for one in found.workers] == [Standing.WARM, Standing.SILENT]
    assert (found.serving, len(found.heard)) == (1, 1)


def test_it_is_complete_when_all_serve_it_and_the_agent_has_noted_it(release: Release) -> None:
    board = Board("here")
    board.show([report(1, routes={KEY: 2}), report(2, routes={KEY: 1})])
    assert not rollout_of(release).is_complete
    board.show([report(1, routes={KEY: 2}), report(2, routes={KEY: 2})])
    assert not rollout_of(release).is_complete
    releases.mark_rolled_out("wine", "production", 2)
    release.refresh_from_db()
    assert rollout_of(release).is_complete
    # Another node may lag behind the one that noted it.
    Board("there").show([report(1, routes={KEY: 1})])
    assert not rollout_of(release).is_complete


def test_following_costs_the_same_however_many_workers_there_are(
    release: Release, django_assert_num_queries: Any
) -> None:
    Board("here").show([report(pid, routes={KEY: 1}) for pid in range(1, 30)])
    with django_assert_num_queries(3):
        rollout_of(release)


# -- the part of the page ------------------------------------------------------------------------


def browser(user: User) -> Client:
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client = Client()
    assert client.login(username=user.username, password=PASSWORD)
    return client


@pytest.fixture
def viewer(release: Release) -> Client:
    return browser(make_member(release.endpoint.model.team, Role.VIEWER))


def part(number: int = 2) -> str:
    return reverse("inference-pages:rollout", args=["wine", "production", number])


def test_the_part_says_how_many_serve_it_and_asks_again(viewer: Client) -> None:
    Board("here").show([report(1, routes={KEY: 2}), report(2, routes={KEY: 1})])
    text = viewer.get(part()).content.decode()
    assert "1 of 2 workers serve release 2." in text
    assert 'hx-trigger="every 1s"' in text


def test_the_part_stops_asking_when_all_have_it(viewer: Client, release: Release) -> None:
    Board("here").show([report(1, routes={KEY: 2})])
    releases.mark_rolled_out("wine", "production", 2)
    decided = timezone.now()
    Release.objects.filter(pk=release.pk).update(
        decided=decided, rolled_out_at=decided + timedelta(seconds=3)
    )
    text = viewer.get(part()).content.decode()
    assert "1 of 1 worker serves release 2; done after 3.0 s." in text
    assert "hx-trigger" not in text


def test_the_part_says_that_a_worker_cannot_load_it_and_goes_on_asking(viewer: Client) -> None:
    Board("here").show([report(1, routes={KEY: 1}, failures={KEY: "<b>It is broken.</b>"})])
    text = viewer.get(part()).content.decode()
    assert "1 worker cannot load it and tries again." in text
    assert "&lt;b&gt;It is broken." in text
    assert "hx-trigger" in text


def test_the_part_of_a_replaced_release_does_not_ask_again(viewer: Client) -> None:
    Board("here").show([report(1, routes={KEY: 2})])
    text = viewer.get(part(1)).content.decode()
    assert "Release 1 is not live" in text
    assert "hx-trigger" not in text


def test_the_part_without_any_worker_says_so(viewer: Client) -> None:
    assert "No serving process has reported yet." in viewer.get(part()).content.decode()


def test_an_unchanged_part_is_not_drawn_again(viewer: Client) -> None:
    Board("here").show([report(1, routes={KEY: 1})])
    text = viewer.get(part()).content.decode()
    seen = text.partition("?seen=")[2][:16]
    assert viewer.get(f"{part()}?seen={seen}").status_code == 204
    Board("here").show([report(1, routes={KEY: 2})])
    assert viewer.get(f"{part()}?seen={seen}").status_code == 200


def test_a_stranger_finds_no_such_part_and_nobody_signs_in(release: Release) -> None:
    stranger = browser(make_member(make_team("red"), Role.MAINTAINER))
    assert stranger.get(part()).status_code == 404
    assert "/login/" in Client().get(part()).headers["Location"]


def test_a_release_that_is_not_there_has_no_part(viewer: Client) -> None:
    assert viewer.get(part(99)).status_code == 404
    unknown = reverse("inference-pages:rollout", args=["nothing", "moon", 1])
    assert viewer.get(unknown).status_code == 404


@pytest.mark.parametrize(("given", "host"), [("", "vm"), ("pod-7", "pod-7"), ("rack:3", "rack:3")])
def test_a_workers_place_is_said_without_the_folder(
    given: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "vm")
    node = node_name(given, Path("/srv/var/serving"))
    assert Worker(node, 1, Standing.WARM, "").host == host
