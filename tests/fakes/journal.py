"""A journal in memory that can be full."""

import threading

from apps.inference.engine.errors import SpoolFull
from apps.inference.engine.journal import PredictionRecord
from apps.registry.snapshot import FullSpool


class FakeJournal:
    """Keeps records in a list; ``full`` makes it behave like a full spool."""

    def __init__(self, *, full: bool = False) -> None:
        self.records: list[PredictionRecord] = []
        self.policies: list[FullSpool] = []
        self.full = full
        self.dropped = 0
        self._lock = threading.Lock()

    def note(self, record: PredictionRecord, *, policy: FullSpool) -> None:
        with self._lock:
            self.policies.append(policy)
            if self.full and policy is FullSpool.REQUIRED:
                raise SpoolFull("The log is full. Try again shortly.")
            if self.full:
                self.dropped += 1
            else:
                self.records.append(record)
