"""The filesystem broker: a reader sees whole messages or none."""

from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection

from mlplatform import broker


@pytest.fixture
def connection(tmp_path: Path) -> Any:
    for name in ("queue", "control"):
        (tmp_path / name).mkdir()
    return Connection(
        "filesystem://localhost",
        transport_options={
            "data_folder_in": str(tmp_path / "queue"),
            "data_folder_out": str(tmp_path / "queue"),
            "control_folder": str(tmp_path / "control"),
        },
    )


def test_the_filesystem_url_means_our_transport(connection: Any) -> None:
    assert isinstance(connection.channel(), broker.Channel)


def test_a_message_arrives_once(connection: Any, tmp_path: Path) -> None:
    channel = connection.channel()
    for number in range(3):
        channel._put("work", {"number": number})
    assert sorted(channel._get("work")["number"] for _ in range(3)) == [0, 1, 2]
    with pytest.raises(Empty):
        channel._get("work")
    assert list((tmp_path / "queue").iterdir()) == []


def test_a_half_written_message_is_not_seen(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, seen = connection.channel(), []

    def replace(draft: Path, target: Path) -> None:
        with pytest.raises(Empty):
            channel._get("work")
        seen.append(draft.read_text())
        draft.rename(target)

    monkeypatch.setattr(Path, "replace", replace)
    channel._put("work", {"number": 1})
    assert len(seen) == 1
    assert channel._get("work") == {"number": 1}


def test_a_queue_gets_only_its_own_messages(connection: Any) -> None:
    channel = connection.channel()
    channel._put("ticks", {"number": 1})
    with pytest.raises(Empty):
        channel._get("work")


def test_an_unreadable_message_is_dropped_and_the_next_is_read(
    connection: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    channel = connection.channel()
    (tmp_path / "queue" / "0_torn.work.msg").write_text("")
    channel._put("work", {"number": 1})
    assert channel._get("work") == {"number": 1}
    assert "could not be read" in caplog.text


def test_of_two_readers_one_gets_the_message(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = connection.channel(), connection.channel()
    first._put("work", {"number": 1})
    taken: list[Any] = []
    rename = Path.rename

    def slow_rename(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)  # the other reader is quicker
        taken.append(second._get("work"))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", slow_rename)
    with pytest.raises(Empty):
        first._get("work")
    assert taken == [{"number": 1}]


def test_binding_keeps_the_queues_that_were_bound_before(connection: Any) -> None:
    channel = connection.channel()
    channel._queue_bind("tasks", "work", "", "work")
    channel._queue_bind("tasks", "ticks", "", "ticks")
    channel._queue_bind("tasks", "work", "", "work")
    assert sorted(row.queue for row in channel.get_table("tasks")) == ["ticks", "work"]


def test_the_table_of_queues_is_never_seen_half_written(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, seen = connection.channel(), []
    channel._queue_bind("tasks", "work", "", "work")
    replace = Path.replace

    def looked_at(draft: Path, target: Path) -> Path:
        seen.append([row.queue for row in channel.get_table("tasks")])
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", looked_at)
    channel._queue_bind("tasks", "ticks", "", "ticks")
    assert seen == [["work"]]
