"""A load client that keeps a ledger: which calls were answered, by which version, and when.

Bounded: it stops at its deadline, and sends to a loopback address only.
"""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson

LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered call.

    Attributes:
        at: ``time.time()`` at which the whole answer had arrived.
        seconds: From the first byte sent to the last byte read.
    """

    prediction_id: str
    version: int
    at: float
    seconds: float


@dataclass(slots=True)
class Ledger:
    """What one run saw. ``refused`` counts answers that are not 200 by status; ``broken`` counts
    connections that ended before the answer.
    """

    answers: list[Answer] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    bodies: list[bytes] = field(default_factory=list)
    broken: int = 0

    def percentile_ms(self, share: float) -> float:
        """Latency below which ``share`` of the answers lie, in milliseconds."""
        ordered = sorted(answer.seconds for answer in self.answers)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else 0.0


@dataclass(slots=True)
class Load:
    """A closed loop of ``connections`` callers, paced to ``rate`` calls a second when given."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    connections: int = 8
    rate: float | None = None
    ledger: Ledger = field(default_factory=Ledger)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, *, at_most_seconds: float) -> None:
        """Begin; it ends by itself after ``at_most_seconds``."""
        if urlsplit(self.url).hostname not in LOOPBACK:
            raise ValueError("This client aims at this machine only.")
        until = time.monotonic() + at_most_seconds
        for number in range(self.connections):
            thread = threading.Thread(target=self._call, args=(number, until), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> Ledger:
        """End after the calls in flight and return what was seen."""
        self._over.set()
        return self.wait()

    def wait(self) -> Ledger:
        """Return what was seen when the time is over."""
        for thread in self._threads:
            thread.join()
        return self.ledger

    def _call(self, number: int, until: float) -> None:
        parts = urlsplit(self.url)
        pause = self.connections / self.rate if self.rate else 0.0
        due = time.monotonic() + pause * number / self.connections
        link: http.client.HTTPConnection | None = None
        while not self._over.is_set() and time.monotonic() < until:
            if pause:
                self._over.wait(max(0.0, due - time.monotonic()))
                due = max(due + pause, time.monotonic() - 1.0)
            link = link or http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
            if not self._once(link, f"{parts.path}?{parts.query}" if parts.query else parts.path):
                link.close()
                link = None
        if link is not None:
            link.close()

    def _once(self, link: http.client.HTTPConnection, path: str) -> bool:
        begun = time.perf_counter()
        try:
            link.request("POST", path, self.body, dict(self.headers))
            reply = link.getresponse()
            data = reply.read()
        except (OSError, http.client.HTTPException):
            with self._lock:
                self.ledger.broken += 1
            time.sleep(0.01)
            return False
        seconds = time.perf_counter() - begun
        with self._lock:
            if reply.status == http.HTTPStatus.OK:
                said = orjson.loads(data)
                self.ledger.answers.append(
                    Answer(said["prediction_id"], said["version"], time.time(), seconds)
                )
            else:
                self.ledger.refused[reply.status] += 1
                self.ledger.bodies = [*self.ledger.bodies, data][-5:]
        return not reply.will_close
