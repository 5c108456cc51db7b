"""A journal for a process that has the database at hand and no agent to ship a spool.

Records come from the engine's threads and wait in memory; whoever asked writes them down from its
own thread, before the answer is shown. So there is no answer without its record, and no thread of
the engine ever holds a database connection.
"""

import itertools
import os
import socket
import threading
import time
from dataclasses import asdict

import orjson

from apps.inference.engine.journal import PredictionRecord
from apps.inference.journal_db.shipper import LogUnavailable, ship_batch
from apps.registry.snapshot import FullSpool


class DirectJournal:
    """Keeps records until ``write_down`` brings them into the database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Whoever finds nothing waiting must know that what it noted is written, not under way.
        self._writing = threading.Lock()
        self._waiting: list[bytes] = []
        self._numbers = itertools.count(1)
        self._writer = f"web-{socket.gethostname()[:60]}-{os.getpid()}-{int(time.time())}"

    def note(self, record: PredictionRecord, *, policy: FullSpool) -> None:
        with self._lock:
            numbered = {**asdict(record), "seq": next(self._numbers), "writer": self._writer}
            payload = orjson.dumps(numbered, option=orjson.OPT_SERIALIZE_NUMPY)
            self._waiting.append(payload)

    def write_down(self) -> None:
        """Write everything that waits, with its counts; what is being written is waited for.

        Raises:
            LogUnavailable: The database does not take it; nothing is lost while this process lives.
        """
        with self._writing:
            self._write_waiting()

    def _write_waiting(self) -> None:
        with self._lock:
            payloads, self._waiting = self._waiting, []
        try:
            ship_batch(payloads)
        except LogUnavailable as error:
            with self._lock:
                self._waiting = [*payloads, *self._waiting]
            raise LogUnavailable(
                "The answer could not be recorded, so it is not shown. Try again in a moment."
            ) from error
