"""Secrets that an installation makes for itself on first start, kept readable by its user only."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def kept_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return the file's bytes, making it first when it is not there; two makers agree on one."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_bytes(make())
    try:
        with contextlib.suppress(FileExistsError):  # somebody else was quicker; theirs is the one
            os.link(draft, path)
    finally:
        draft.unlink()
    return path.read_bytes()


def secret_key(data_dir: Path) -> str:
    """Return Django's secret key of this installation."""
    file = data_dir / "keys" / "secret.key"
    return kept_file(file, lambda: secrets.token_urlsafe(64).encode()).decode()
