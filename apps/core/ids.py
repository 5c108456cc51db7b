"""UUIDv7: unique, and sorted by the millisecond at which they were made; plain Python."""

import os
import time
import uuid


def new_id(unix_ms: int | None = None) -> str:
    """Make a UUIDv7 as 36 characters.

    Args:
        unix_ms: Milliseconds since 1970 that it shall carry; now, when not given.
    """
    ms = time.time_ns() // 1_000_000 if unix_ms is None else unix_ms
    noise = int.from_bytes(os.urandom(10), "big")
    high = (ms << 16) | 0x7000 | (noise >> 68)
    low = (0b10 << 62) | (noise & 0x3FFF_FFFF_FFFF_FFFF)
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def milliseconds_of(identifier: str) -> int:
    """Return the Unix milliseconds that a UUIDv7 carries; ``ValueError`` for anything else."""
    value = uuid.UUID(identifier)
    if value.version != 7:
        raise ValueError(f"{identifier} is not a UUIDv7.")
    return value.int >> 80
