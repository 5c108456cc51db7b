"""A validation tells its stages in words, and its version's page finds them."""

from typing import Any

import pytest

from apps.core import work
from apps.core.models import Work
from apps.registry import tasks
from apps.registry.clients import sandbox
from apps.registry.services import uploads, validation
from tests.factories.registry import FakeSandbox, make_upload

pytestmark = pytest.mark.django_db


def stages_of(version: Any) -> list[str]:
    progress = work.newest_of("registry.modelversion", version.pk)
    assert progress is not None
    return [one.words for one in progress.stages]


def test_the_stages_of_a_real_validation_are_told_in_words() -> None:
    version = make_upload()
    assert tasks.validate_version is not None  # declares the kind
    work.run_once(Work.objects.get(name=uploads.VALIDATE).pk)
    version.refresh_from_db()
    assert version.state == "ready", version.report
    assert stages_of(version) == [
        "Fetching the file",
        "Looking at the file",
        "Checking the graph",
        "Running the model",
        "Storing the files",
    ]


def test_every_stage_of_the_sandbox_has_words() -> None:
    assert all(words and words == words.strip() for words in sandbox.DOING.values())


def test_a_version_that_waits_for_its_validation_has_progress_already() -> None:
    version = make_upload()
    progress = work.newest_of("registry.modelversion", version.pk)
    assert progress is not None
    assert (progress.state, progress.stages, progress.error) == ("queued", (), "")


def test_a_validation_outside_of_work_tells_nobody_and_goes_on() -> None:
    version = make_upload()
    validation.validate_version(version.pk, inspect=FakeSandbox())
    version.refresh_from_db()
    assert version.state == "ready"
