"""Validation: one verdict, all or nothing, whatever dies or is asked twice."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError
from django.db import connection, connections
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from apps.core import snapshot, storage, work
from apps.core.events import Actor
from apps.core.models import Event, Work
from apps.registry import selectors, tasks
from apps.registry.models import Artifact, ModelVersion
from apps.registry.services import uploads, validation
from apps.registry.services.uploads import About
from apps.registry.snapshot import version_from_json
from apps.registry.states import VersionState
from tests.apps.registry.conftest import Files
from tests.factories.accounts import make_team
from tests.factories.registry import FakeSandbox, make_model, make_upload, stored, tiny_onnx

pytestmark = pytest.mark.django_db
Commit = DjangoCaptureOnCommitCallbacks
OTHER = tiny_onnx(2.0)


def judge(version: ModelVersion, sandbox: FakeSandbox, commit: Commit) -> ModelVersion:
    with commit(execute=True):
        validation.validate_version(version.pk, inspect=sandbox)
    return selectors.find_version(version.model, version.number)


@pytest.fixture
def version() -> ModelVersion:
    return make_upload(make_model("wine", team=make_team("blue")))


def test_a_good_file_becomes_ready_with_its_files_in_their_place(
    version: ModelVersion, files: Files, django_capture_on_commit_callbacks: Commit
) -> None:
    good = FakeSandbox(served=OTHER)
    found = judge(version, good, django_capture_on_commit_callbacks)
    assert (found.state, found.runtime, found.format) == ("ready", "onnx", "onnx")
    original, served = f"original-{found.sha256[:16]}", f"served-{found.served_sha256[:16]}"
    folder = "artifacts/teams/blue/wine/v1"
    assert files.names() == {f"{folder}/{name}" for name in (original, served, "metadata.json")}
    assert {one.role for one in Artifact.objects.filter(version=found)} == {
        "original",
        "served",
        "metadata",
    }
    with storage.opened(found.served_key) as file:
        assert file.read() == OTHER


def test_serving_processes_learn_of_it_in_the_same_transaction(
    version: ModelVersion, django_capture_on_commit_callbacks: Commit
) -> None:
    found = judge(version, FakeSandbox(served=OTHER), django_capture_on_commit_callbacks)
    entry = next(one for one in snapshot.entries_after(0) if one.key == "wine/1")
    assert entry.body is not None
    body = version_from_json(entry.body)
    assert (body.sha256, body.storage_key) == (found.served_sha256, found.served_key)
    assert body.signature.inputs[0].name == "x"


def test_a_file_served_as_it_came_is_kept_once(
    version: ModelVersion, files: Files, django_capture_on_commit_callbacks: Commit
) -> None:
    found = judge(version, FakeSandbox(), django_capture_on_commit_callbacks)
    assert (found.served_sha256, len(files.names())) == (found.sha256, 2)


def test_every_artifacts_digest_is_that_of_its_file(
    version: ModelVersion, tmp_path: Path, django_capture_on_commit_callbacks: Commit
) -> None:
    judge(version, FakeSandbox(served=OTHER), django_capture_on_commit_callbacks)
    for artifact in Artifact.objects.all():
        assert storage.fetch(artifact.key, tmp_path / "copy") == artifact.sha256
        assert (tmp_path / "copy").stat().st_size == artifact.size


def test_a_refused_file_leaves_its_reason_and_no_file(
    version: ModelVersion, files: Files, django_capture_on_commit_callbacks: Commit
) -> None:
    bad = FakeSandbox("This pickle wants os.system, which is not a model.")
    found = judge(version, bad, django_capture_on_commit_callbacks)
    assert (found.state, found.report["reason"]) == ("rejected", bad.reason)
    assert files.names() == set()
    assert Event.objects.get(verb="version.rejected").reason == bad.reason
    assert not [one for one in snapshot.entries_after(0) if one.kind == "version"]


def test_the_sandbox_gets_what_the_uploader_and_the_operator_allow(settings: Settings) -> None:
    settings.NATIVE_FORMATS = frozenset({"sklearn"})
    sandbox = FakeSandbox()
    about = About(format="onnx", example={"instances": [[1]]})
    version = make_upload(about=about, may_carry_code=True)
    validation.validate_version(version.pk, inspect=sandbox)
    asked = sandbox.asked[0]
    assert asked["policy"].allow_code
    assert asked["policy"].native_formats == {"sklearn"}
    assert (asked["declared_format"], asked["example"]) == ("onnx", b'{"instances":[[1]]}')
    assert asked["bytes"] == tiny_onnx()


def test_a_judged_version_is_not_judged_again(version: ModelVersion) -> None:
    sandbox = FakeSandbox()
    for _ in range(2):
        validation.validate_version(version.pk, inspect=sandbox)
    assert len(sandbox.asked) == 1
    assert Event.objects.filter(verb="version.ready").count() == 1


def test_what_a_killed_worker_left_in_the_middle_is_taken_up(version: ModelVersion) -> None:
    killed = FakeSandbox()
    killed.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        validation.validate_version(version.pk, inspect=killed)
    version.refresh_from_db()
    assert version.state == VersionState.VALIDATING
    validation.validate_version(version.pk, inspect=FakeSandbox())
    version.refresh_from_db()
    assert version.state == VersionState.READY


def test_work_that_fails_three_times_rejects_the_version_as_a_crash(
    version: ModelVersion,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Commit,
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(validation, "_fetch_and_judge", crash)
    row = Work.objects.get(name=uploads.VALIDATE)
    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(3):
            Work.objects.update(not_before=timezone.now())
            assert work.run_once(row.pk)
    version.refresh_from_db()
    assert version.state == VersionState.REJECTED
    assert version.report["reason"] == "The validator crashed on this file."
    assert files.names() == set()


def test_the_work_by_name_is_the_validation(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(validation, "validate_version", seen.append)
    assert work.run_once(Work.objects.get(name=uploads.VALIDATE).pk)
    assert seen == [version.pk]


def test_giving_up_a_judged_version_changes_nothing(version: ModelVersion) -> None:
    validation.validate_version(version.pk, inspect=FakeSandbox())
    validation.give_up(version.pk, reason="lost")
    version.refresh_from_db()
    assert version.state == VersionState.READY


@pytest.mark.parametrize("where", ["fetch", "put_file"])
def test_a_store_that_is_down_does_not_condemn_the_file(
    version: ModelVersion, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise EndpointConnectionError(endpoint_url="s3")

    with monkeypatch.context() as patch:
        patch.setattr(storage, where, down)
        validation.validate_version(version.pk, inspect=FakeSandbox())
    version.refresh_from_db()
    assert version.state == VersionState.UPLOADED
    Work.objects.all().delete()
    ModelVersion.objects.update(created=timezone.now() - timedelta(hours=1))
    assert uploads.sweep() == 1
    assert Work.objects.get().args == {"version_id": version.pk}
    assert uploads.sweep() == 0


def test_a_stored_file_that_changed_is_refused(version: ModelVersion) -> None:
    storage.put_bytes(version.incoming_key, b"something else")
    sandbox = FakeSandbox()
    validation.validate_version(version.pk, inspect=sandbox)
    version.refresh_from_db()
    assert (version.state, sandbox.asked) == ("rejected", [])
    assert "not what was uploaded" in version.report["reason"]


def test_a_stored_file_that_is_gone_is_refused(version: ModelVersion) -> None:
    storage.delete(version.incoming_key)
    validation.validate_version(version.pk, inspect=FakeSandbox())
    version.refresh_from_db()
    assert "gone" in version.report["reason"]


def test_of_two_workers_the_quicker_one_wins_and_the_slower_leaves_nothing(
    version: ModelVersion, files: Files, django_capture_on_commit_callbacks: Commit
) -> None:
    class Slow(FakeSandbox):
        def __call__(self, file: Path, **facts: object) -> object:  # type: ignore[override]
            validation.validate_version(version.pk, inspect=FakeSandbox(served=OTHER))
            return super().__call__(file, **facts)  # type: ignore[arg-type]

    slow = Slow(served=tiny_onnx(3.0))
    found = judge(version, slow, django_capture_on_commit_callbacks)
    assert len(files.names()) == 3
    with storage.opened(found.served_key) as file:
        assert file.read() == OTHER
    assert Event.objects.filter(verb="version.ready").count() == 1


def test_a_rejection_clears_what_a_killed_run_had_stored(
    version: ModelVersion,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Commit,
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(validation, "_accept", killed)
        with pytest.raises(KeyboardInterrupt):
            validation.validate_version(version.pk, inspect=FakeSandbox(served=OTHER))
    assert len(files.names()) == 3
    with django_capture_on_commit_callbacks(execute=True):
        validation.give_up(version.pk, reason="lost")
    assert files.names() == set()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="the in-memory test database is one")
def test_uploads_at_once_get_numbers_without_gap_or_double() -> None:
    team = make_team()
    together = threading.Barrier(6)

    def send() -> None:
        together.wait(10)
        try:
            uploads.receive_version(
                stored(tiny_onnx()),
                model_name="new",
                team=team,
                actor=Actor.system(),
                person_id=None,
                may_carry_code=False,
            )
        finally:
            connections.close_all()

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = ModelVersion.objects.order_by("number").values_list("number", flat=True)
    assert list(numbers) == [1, 2, 3, 4, 5, 6]


# -- the signature that was sent -------------------------------------------------------------------


def signature(**change: object) -> dict[str, object]:
    said = {"name": "x", "dtype": "float32", "shape": [-1, 4]} | change
    out = {"name": "y", "dtype": "float32", "shape": [-1, 1]}
    return {"inputs": [said], "outputs": [out]}


def test_bounds_of_the_declared_signature_are_taken(version: ModelVersion) -> None:
    wanted = make_upload(about=About(signature=signature(minimum=0, columns=list("abcd"))))
    validation.validate_version(wanted.pk, inspect=FakeSandbox())
    wanted.refresh_from_db()
    assert wanted.signature is not None
    said = wanted.signature["inputs"][0]
    assert (said["minimum"], said["columns"]) == (0.0, ["a", "b", "c", "d"])
    assert wanted.report["checks"][-1]["state"] == "passed"


@pytest.mark.parametrize("change", [{"dtype": "int64"}, {"shape": [-1, 5]}, {"name": "z"}], ids=str)
def test_a_declared_signature_that_does_not_fit_rejects_with_the_difference(
    change: dict[str, object],
) -> None:
    wanted = make_upload(about=About(signature=signature(**change)))
    validation.validate_version(wanted.pk, inspect=FakeSandbox())
    wanted.refresh_from_db()
    assert wanted.state == VersionState.REJECTED
    assert "signature that was sent" in wanted.report["reason"]
    assert wanted.report["checks"][-1]["state"] == "failed"


# -- the sweeper -----------------------------------------------------------------------------------


def test_the_sweeper_removes_abandoned_files_and_spares_what_is_wanted(
    version: ModelVersion, files: Files, data_dir: Path
) -> None:
    import os

    storage.put_bytes("incoming/abandoned", b"x")
    storage.put_bytes("incoming/fresh", b"x")
    (uploads.temp_folder() / "half").write_bytes(b"x")
    (uploads.work_folder() / "left" / "inner").mkdir(parents=True)
    (uploads.work_folder() / "left" / "inner" / "file").write_bytes(b"x")
    old = timezone.now().timestamp() - 8 * 86_400
    for name in ("artifacts/incoming/abandoned", f"artifacts/{version.incoming_key}"):
        os.utime(data_dir / name, (old, old))
    for path in (uploads.temp_folder() / "half", uploads.work_folder() / "left"):
        os.utime(path, (old, old))
    tasks.tick_sweep_uploads()
    assert files.names() == {"artifacts/incoming/fresh", f"artifacts/{version.incoming_key}"}
    assert not list(uploads.work_folder().iterdir())


# -- the real sandbox ------------------------------------------------------------------------------


def test_a_real_onnx_file_passes_the_real_sandbox() -> None:
    version = make_upload()
    validation.validate_version(version.pk)
    version.refresh_from_db()
    assert version.state == VersionState.READY, version.report
    assert (version.format, version.container, version.runtime) == ("onnx", "onnx", "onnx")
    assert version.signature is not None
    assert version.signature["inputs"][0]["shape"] == [-1, 4]
    assert version.resident_bytes > 0


def test_rubbish_is_refused_by_the_real_sandbox_in_words(
    files: Files, django_capture_on_commit_callbacks: Commit
) -> None:
    version = make_upload(data=b"this is not a model at all")
    with django_capture_on_commit_callbacks(execute=True):
        validation.validate_version(version.pk)
    version.refresh_from_db()
    assert version.state == VersionState.REJECTED
    assert "text" in version.report["reason"]
    assert files.names() == set()
