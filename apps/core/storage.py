"""Artifacts on local disk or in an S3-compatible store, behind one few words.

Names are made by the server; no text of a client ever becomes a path.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage, storages

CHUNK = 1024 * 1024


def artifacts() -> Storage:
    """Return the artifact store of the settings."""
    return storages["artifacts"]


def put_file(name: str, path: Path) -> None:
    """Store a local file under a name, streamed."""
    with path.open("rb") as file:
        _write(name, File(file))


def put_bytes(name: str, data: bytes) -> None:
    """Store a few bytes under a name."""
    _write(name, ContentFile(data))


def _write(name: str, content: "File[bytes]") -> None:
    store = artifacts()
    if store.exists(name):
        store.delete(name)
    kept = store.save(name, content)
    if kept != name:  # a store that renames would break the address that the row keeps
        store.delete(kept)
        raise FileExistsError(f"The artifact store refused the name {name}.")


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """Open a stored file for reading."""
    with artifacts().open(name, "rb") as file:
        yield file


def fetch(name: str, target: Path) -> str:
    """Copy a stored file to a local path; return the SHA-256 of what was copied, hex."""
    digest = hashlib.sha256()
    with opened(name) as source, target.open("wb") as file:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a local file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def delete(name: str) -> None:
    """Delete a stored file; nothing happens when it is not there."""
    artifacts().delete(name)
