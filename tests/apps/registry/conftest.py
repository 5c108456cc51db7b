"""A private data folder for each test: nothing of another test lies in its store."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.files.storage import storages
from pytest_django.fixtures import Settings


def forget_store() -> None:
    """Have the store made anew from the settings."""
    made: dict[str, object] = storages._storages  # type: ignore[attr-defined]  # untyped
    made.pop("artifacts", None)


@pytest.fixture(autouse=True)
def data_dir(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    settings.DATA_DIR = tmp_path
    store = dict(settings.STORAGES)
    store["artifacts"] = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {
            "location": str(tmp_path / "artifacts"),
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    }
    settings.STORAGES = store
    forget_store()
    yield tmp_path
    forget_store()


@pytest.fixture
def files(data_dir: Path) -> "Files":
    return Files(data_dir)


class Files:
    """What lies below the data folder, the signing keys aside."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> set[str]:
        found = (path for path in self.root.rglob("*") if path.is_file())
        names = {str(path.relative_to(self.root)) for path in found}
        return {name for name in names if not name.startswith("keys/")}
