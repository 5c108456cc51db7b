"""The local snapshot file: nothing is believed that was not written whole."""

from pathlib import Path

import pytest

from apps.core.snapshot_file import FILE, Entry, SnapshotDamaged, SnapshotReader, SnapshotWriter


def entry(generation: int, key: str = "a", **body: int) -> Entry:
    return Entry("key", key, generation, body or {"n": generation})


def test_a_reader_sees_the_base_then_only_what_is_new(tmp_path: Path) -> None:
    writer, reader = SnapshotWriter(tmp_path), SnapshotReader(tmp_path)
    writer.replace("one", [entry(1), entry(2, "b")], 2)
    first = reader.read()
    writer.append([entry(3)])
    second = reader.read()
    assert first is not None
    assert second is not None
    assert (first.full, first.generation, len(first.entries)) == (True, 2, 2)
    assert (second.full, second.entries) == (False, (entry(3),))
    assert reader.read() is None


def test_a_line_that_is_not_finished_is_not_read_yet(tmp_path: Path) -> None:
    writer, reader = SnapshotWriter(tmp_path), SnapshotReader(tmp_path)
    writer.replace("one", [entry(1)], 1)
    writer.append([entry(2)])
    file = tmp_path / FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    change = reader.read()
    assert change is not None
    assert change.generation == 1
    with file.open("ab") as handle:
        handle.write(whole[-3:])
    change = reader.read()
    assert change is not None
    assert change.generation == 2


def test_a_line_with_one_flipped_byte_is_refused_and_the_reader_stays(tmp_path: Path) -> None:
    writer, reader = SnapshotWriter(tmp_path), SnapshotReader(tmp_path)
    writer.replace("one", [entry(1)], 1)
    reader.read()
    writer.append([entry(2)])
    file = tmp_path / FILE
    data = bytearray(file.read_bytes())
    data[-4] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(SnapshotDamaged):
        reader.read()
    assert reader.generation == 1


def test_an_older_file_of_the_same_epoch_is_refused(tmp_path: Path) -> None:
    writer, reader = SnapshotWriter(tmp_path), SnapshotReader(tmp_path)
    writer.replace("one", [entry(1)], 5)
    reader.read()
    writer.replace("one", [entry(1)], 4)
    with pytest.raises(SnapshotDamaged):
        reader.read()


def test_a_new_epoch_may_have_older_generations(tmp_path: Path) -> None:
    writer, reader = SnapshotWriter(tmp_path), SnapshotReader(tmp_path)
    writer.replace("one", [entry(9)], 9)
    reader.read()
    writer.replace("two", [entry(1)], 1)
    change = reader.read()
    assert change is not None
    assert (change.full, change.epoch, change.generation) == (True, "two", 1)


def test_a_compaction_drops_what_is_deleted_and_loses_nothing_else(tmp_path: Path) -> None:
    writer, reader = SnapshotWriter(tmp_path), SnapshotReader(tmp_path)
    writer.replace("one", [], 0)
    for generation in range(1, 2101):
        writer.append([entry(generation, f"k{generation % 50}")])
    writer.append([Entry("key", "k7", 2101, None)])
    change = reader.read()
    assert change is not None
    assert {one.key for one in change.entries} == {f"k{n}" for n in range(50)} - {"k7"}
    lines = (tmp_path / FILE).read_bytes().count(b"\n")
    assert lines < 200


def test_a_writer_takes_up_what_a_former_one_left(tmp_path: Path) -> None:
    SnapshotWriter(tmp_path).replace("one", [entry(1), entry(2, "b")], 2)
    writer = SnapshotWriter(tmp_path)
    writer.load()
    assert (writer.epoch, writer.generation, len(writer.state())) == ("one", 2, 2)


def test_a_writer_that_finds_rubbish_starts_afresh(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"rubbish\n")
    writer = SnapshotWriter(tmp_path)
    writer.load()
    assert (writer.epoch, writer.generation) == ("", 0)
