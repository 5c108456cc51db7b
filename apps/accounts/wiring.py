"""Builds the one limiter of this process from the settings, after the fork.

It needs no database: the serving role has none of its own. Nothing here runs before somebody asks.
"""

import os
import socket
import threading
from pathlib import Path

from django.conf import settings

from apps.accounts.counters.fallback import FallbackCounters
from apps.accounts.counters.node_file import NodeCounters
from apps.accounts.counters.redis_store import RedisCounters
from apps.accounts.limits import Ceilings, Counters, Limiter

FILE = "limits-1.bin"

_lock = threading.Lock()
_limiter: Limiter | None = None
_local: NodeCounters | None = None


def limiter() -> Limiter:
    """Return this process' own; the first call builds it."""
    return _limiter or _built()


def reset() -> None:
    """Forget what was built, at the end of a test; the next call builds anew."""
    global _limiter, _local
    with _lock:
        closing, _limiter, _local = _local, None, None
    if closing is not None:
        closing.close()


def local_path() -> Path:
    """Where the processes of this node count together."""
    return Path(settings.SERVING_DIR) / FILE


def _built() -> Limiter:
    global _limiter, _local  # noqa: PLW0603 - the one reference of the process
    with _lock:
        if _limiter is None:
            _local = NodeCounters(local_path())
            _limiter = Limiter(
                _counters(_local),
                ceilings=Ceilings(
                    person=settings.LIMIT_PERSON_PER_MINUTE,
                    address=settings.LIMIT_ADDRESS_PER_MINUTE,
                    refused=settings.LIMIT_REFUSED_PER_MINUTE,
                ),
            )
        return _limiter


def _counters(local: NodeCounters) -> Counters:
    if not settings.REDIS_URL:
        return local
    budget = settings.LIMIT_REDIS_MS / 1000
    # Processes that share the file are one node, whatever runs in them.
    node = f"{settings.NODE_NAME or socket.gethostname()}:{local_path().parent}"
    shared = RedisCounters(settings.REDIS_URL, node=node, timeout_seconds=budget)
    return FallbackCounters(shared, local, budget_seconds=budget)


def _forget() -> None:
    """In a forked child: the parent's lock on the file would be ours too."""
    global _limiter, _local, _lock
    _limiter, _local, _lock = None, None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
