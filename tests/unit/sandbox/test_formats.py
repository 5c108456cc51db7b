"""A file is what its content says; what it is not is said in words."""

import contextlib
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from apps.registry import formats
from apps.registry.formats import Container, NotAModel, check_declared, check_name, recognise
from tests.unit.runtimes import graphs

MODEL = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])


def _file(folder: Path, data: bytes) -> Path:
    (folder / "upload").write_bytes(data)
    return folder / "upload"


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_any_protocol_is_a_pickle(protocol: int, tmp_path: Path) -> None:
    path = _file(tmp_path, pickle.dumps(MODEL, protocol=protocol))
    assert recognise(path).container is Container.PICKLE


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib_is_recognised_through_its_compressions(compress: object, tmp_path: Path) -> None:
    joblib.dump(MODEL, tmp_path / "upload", compress=compress)
    assert recognise(tmp_path / "upload").container is Container.JOBLIB


def test_skops_and_onnx_are_recognised(tmp_path: Path) -> None:
    skops.io.dump(MODEL, tmp_path / "upload")
    assert recognise(tmp_path / "upload").container is Container.SKOPS
    graphs.save(graphs.linear(), tmp_path / "upload")
    assert recognise(tmp_path / "upload").container is Container.ONNX


def _zip(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("file"))
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"age,plan\n1,2\n", "text"),
        (b'{"a": 1}', "JSON"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "PNG"),
        (b"%PDF-1.7\n\x00\xff", "PDF"),
        (b"\x7fELF" + bytes(60), "program"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "Keras"),
        (b"\x1f\x8b\x08" + b"\x01" * 30, "damaged"),
        (_tar(), "tar"),
        (_npz(), "numpy"),
        (_zip(archive__data_dot_pkl=b"x"), "PyTorch"),
        (_zip(config_dot_json=b"x"), "Keras"),
        (_zip(readme=b"x"), "zip archive"),
        (_zip(schema_dot_json=b"{}")[:40], "damaged"),
        (bytes(range(256)) * 4, "no kind"),
        (b"\x00" * 100, "no kind"),
    ],
)
def test_what_is_no_model_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match=words) as caught:
        recognise(_file(tmp_path, data))
    assert caught.value.remedy


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_onnx_file_is_said_to_be_cut_off(share: float, tmp_path: Path) -> None:
    data = graphs.linear().SerializeToString()
    with pytest.raises(NotAModel, match=r"ends too early|cut off"):
        recognise(_file(tmp_path, data[: int(len(data) * share)]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_are_recognised_or_refused_in_words(tmp_path: Path, data: bytes) -> None:
    with contextlib.suppress(NotAModel):
        recognise(_file(tmp_path, data))


def test_a_zip_bomb_is_counted_by_what_really_comes_out(tmp_path: Path) -> None:
    bomb = _zip(schema_dot_json=b"{}", zeros=bytes(100 << 20))
    with pytest.raises(NotAModel, match="zip bomb"):
        recognise(_file(tmp_path, bomb))


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path) -> None:
    members = [zipfile.ZipInfo(f"m{at}") for at in range(formats.MOST_MEMBERS + 1)]
    with pytest.raises(NotAModel, match="files"):
        formats.check_members(members)


@pytest.mark.parametrize("name", ["/etc/passwd", "../../x", "a\\b", "a/../../b"])
def test_a_name_that_leads_out_of_the_archive_is_refused(name: str) -> None:
    member = zipfile.ZipInfo("x")
    member.filename = name
    with pytest.raises(NotAModel, match="leads out"):
        formats.check_members([member])


def test_links_and_colliding_names_in_an_archive_are_refused() -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with pytest.raises(NotAModel, match="link"):
        formats.check_members([link])
    with pytest.raises(NotAModel, match="twice"):
        formats.check_members([zipfile.ZipInfo("a"), zipfile.ZipInfo("A")])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("m.onnx", Container.PICKLE),
        ("m.pkl", Container.ONNX),
        ("m.skops", Container.JOBLIB),
        ("m.pt", Container.PICKLE),
        ("m.PKL", Container.ONNX),
    ],
)
def test_a_name_of_another_kind_than_the_content_is_refused(name: str, found: Container) -> None:
    with pytest.raises(NotAModel, match="name ends in"):
        check_name(name, found)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("m.joblib", Container.PICKLE),
        ("m.pkl", Container.JOBLIB),
        ("m.bin", Container.ONNX),
        ("m", Container.SKOPS),
        ("model.v2.onnx", Container.ONNX),
    ],
)
def test_a_name_that_fits_or_says_nothing_passes(name: str, found: Container) -> None:
    check_name(name, found)


def test_a_declared_format_must_be_the_one_found() -> None:
    check_declared("scikit-learn", formats.Format.SKLEARN)
    check_declared("", formats.Format.ONNX)
    with pytest.raises(NotAModel, match="declared"):
        check_declared("onnx", formats.Format.SKLEARN)


def test_a_cut_off_archive_is_not_taken_for_the_one_inside_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "upload", "w") as archive:
        archive.writestr("first", b"x")
        archive.writestr("inner", _zip(schema_dot_json=b"{}"))
    whole = (tmp_path / "upload").read_bytes()
    cut = whole[: whole.rindex(b"PK\x01\x02") - 40]
    assert b"PK\x05\x06" in cut
    with pytest.raises(NotAModel, match="damaged"):
        recognise(_file(tmp_path, cut))
