"""A real Redis that dies, hangs and comes back under load: no call fails, the limit holds."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apps.accounts.callers import Caller
from apps.accounts.counters import fallback
from apps.accounts.counters.fallback import FallbackCounters
from apps.accounts.counters.node_file import NodeCounters
from apps.accounts.counters.redis_store import RedisCounters
from apps.accounts.limits import Limiter
from apps.accounts.snapshot import KeyBody, PlanBody
from apps.core.errors import RateLimited
from scripts import services
from tests.fakes.clock import FakeClock

MOST = 200
WHO = Caller(
    1,
    "ada",
    False,
    {},
    frozenset(),
    key=KeyBody("k1", "", 1, 1, (), (), (), None),
    plan=PlanBody("p", requests_per_minute=MOST, rows_per_day=50_000),
)


@pytest.fixture
def server(tmp_path: Path, redis_url: str) -> Iterator[services.Running]:
    """A Redis of this test's own, which it may end; ``redis_url`` says that there is one at all."""
    running = services.start_redis(tmp_path)
    yield running
    running.process.send_signal(signal.SIGCONT)
    services.stop(running)


class Platform:
    """Two serving processes of one node, by one wall clock that the test moves."""

    def __init__(self, folder: Path, url: str) -> None:
        self.now = FakeClock(1_000_000.0)
        self.counters = [
            FallbackCounters(
                RedisCounters(url, node="one", timeout_seconds=1.0),
                NodeCounters(folder / "limits"),
                budget_seconds=1.0,
            )
            for _ in range(2)
        ]
        self.limiters = [Limiter(one, clock=self.now) for one in self.counters]
        self.passed, self.refused, self.failed = 0, 0, 0
        self._lock = threading.Lock()

    def load(self, calls: int, meanwhile: Callable[[], None] = lambda: None) -> tuple[int, int]:
        """Let eight threads call; return how many passed and how many failed."""
        self.passed = self.failed = 0
        threads = [
            threading.Thread(target=self._call, args=(self.limiters[one % 2], calls // 8))
            for one in range(8)
        ]
        for one in threads:
            one.start()
        meanwhile()
        for one in threads:
            one.join()
        return self.passed, self.failed

    def _call(self, limiter: Limiter, calls: int) -> None:
        for _ in range(calls):
            try:
                limiter.enter(WHO, None).spend(1)
            except RateLimited:
                continue
            except Exception:  # noqa: BLE001 - whatever it is, a call failed
                with self._lock:
                    self.failed += 1
            else:
                with self._lock:
                    self.passed += 1

    def next_minute(self) -> None:
        self.now.advance(60)

    def until_back(self) -> None:
        """Call until both processes have heard Redis again, or ten seconds have passed."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            self.load(8)
            if not any(one.is_away for one in self.counters):
                return
            threading.Event().wait(0.05)
        pytest.fail("Redis is back and nobody asks it")


@pytest.fixture
def platform(tmp_path: Path, server: services.Running, monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setattr(fallback, "OPEN_SECONDS", 0.2)
    return Platform(tmp_path, server.url)


def test_a_redis_that_is_killed_costs_no_call_and_holds_the_limit(
    platform: Platform, server: services.Running
) -> None:
    assert platform.load(800) == (MOST, 0)
    platform.next_minute()
    passed, failed = platform.load(1600, meanwhile=server.process.kill)
    assert failed == 0
    assert MOST <= passed <= 2 * MOST
    platform.next_minute()
    passed, failed = platform.load(800)
    assert (passed, failed) == (MOST * 12 // 10, 0)
    assert all(one.is_away for one in platform.counters)


def test_a_redis_that_hangs_costs_no_call_and_is_exact_again_afterwards(
    platform: Platform, server: services.Running
) -> None:
    assert platform.load(800) == (MOST, 0)
    platform.next_minute()
    server.process.send_signal(signal.SIGSTOP)
    passed, failed = platform.load(800)
    assert failed == 0
    assert MOST <= passed <= 2 * MOST
    server.process.send_signal(signal.SIGCONT)
    platform.until_back()
    platform.next_minute()
    assert platform.load(800) == (MOST, 0)
