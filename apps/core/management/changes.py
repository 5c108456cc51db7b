"""Notices that a source file has changed, for ``manage.py dev --reload``."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SUFFIXES = frozenset({".py", ".html"})
LOOK_SECONDS = 1.0


class Changes:
    """Compares the files of some folders with what they were at the last look."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._looked = time.monotonic()
        self._seen = self._now()

    def any(self) -> bool:
        """Return whether a file changed, came or went; looks at most once a second."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        before, self._seen = self._seen, self._now()
        return before != self._seen

    def _now(self) -> dict[Path, int]:
        return {path: at for folder in self._folders for path, at in _times(folder)}


def _times(folder: Path) -> Iterator[tuple[Path, int]]:
    for path in folder.rglob("*"):
        if path.suffix in SUFFIXES:
            try:
                yield path, path.stat().st_mtime_ns
            except FileNotFoundError:
                continue  # an editor's draft that is gone again
