"""The local files of a node: written whole, read with doubt."""

import os
from pathlib import Path

import pytest

from apps.inference.node import AgentReport, Node, WorkerReport


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 63])
def test_only_a_digest_becomes_a_file_name(tmp_path: Path, name: str) -> None:
    node = Node(tmp_path)
    for act in (node.artifact, node.want, node.has, node.verified, node.granted):
        with pytest.raises(ValueError, match="digest"):
            act(name)
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_is_what_its_name_says_or_is_not_there(tmp_path: Path) -> None:
    node = Node(tmp_path)
    sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert node.verified(sha256) is None
    node.artifacts.mkdir()
    node.artifact(sha256).write_bytes(b"hello")
    assert node.verified(sha256) == node.artifact(sha256)
    node.artifact(sha256).write_bytes(b"hallo")
    assert node.verified(sha256) is None
    assert not node.has(sha256)


def test_a_checked_artifact_counts_as_used_now(tmp_path: Path) -> None:
    node = Node(tmp_path)
    sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    node.artifacts.mkdir()
    path = node.artifact(sha256)
    path.write_bytes(b"hello")
    os.utime(path, (1, 1))
    node.verified(sha256)
    assert path.stat().st_mtime > 1


def test_the_living_are_those_heard_of_a_moment_ago(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for pid in (1, 2, 3):
        node.report(WorkerReport(pid, "e", 5, "ready", routes={"production/wine": pid}))
    os.utime(node.workers / "2.json", (1, 1))
    node.leave(3)
    assert [one.pid for one in node.living()] == [1]
    assert node.still_alive(2)
    assert [one.pid for one in node.living()] == [1, 2]
    assert not node.still_alive(3)


def test_a_report_that_cannot_be_read_is_nobodys(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.report(WorkerReport(1, "e", 5, "ready"))
    for name, text in (("2.json", "{"), ("3.json", "[]"), ("4.json", '{"loaded": [], "new": 1}')):
        (node.workers / name).write_text(text)
    assert [one.pid for one in node.living()] == [1]


def test_the_forgotten_are_removed(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.report(WorkerReport(1, "e", 5, "ready"))
    node.report(WorkerReport(2, "e", 5, "ready"))
    os.utime(node.workers / "2.json", (1, 1))
    node.forget_silent()
    assert [path.name for path in node.workers.glob("*.json")] == ["1.json"]


def test_the_agents_report_comes_with_its_age(tmp_path: Path) -> None:
    node = Node(tmp_path)
    assert node.agent() is None
    report = AgentReport(1, "e", 5, "ok", "ok", "ok", 0, 0.0)
    node.report_agent(report)
    found = node.agent()
    assert found is not None
    assert found[0] == report
    assert found[1] < 60
    (tmp_path / "agent.json").write_text("{}")
    assert node.agent() is None
