"""Limits on a running platform: how fast a change is live, and what an outage of Redis does.

    python -m benchmarks.limits

Starts a platform of its own with two serving processes and a Redis of its own, which it hangs
(SIGSTOP) and kills under load. Prints what it saw and fails when a bar is not met.
"""

import contextlib
import http.client
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.faults import warm
from benchmarks.stack import Stack, stack, tiny_model
from scripts import services

BODY = b'{"instances": [[1, 2, 3, 4]]}'
LIVE_SECONDS = 5.0
MOST = 300


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: when it was asked for, how it came out, and which limits it named."""

    asked: float
    status: int
    policy: str
    seconds: float


@dataclass(slots=True)
class Callers:
    """Callers that open a connection for each call, so that every worker is asked in turn."""

    url: str
    key: str
    threads: int = 4
    pause: float = 0.02
    seen: list[Seen] = field(default_factory=list)
    broken: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def start(self) -> "Callers":
        for _ in range(self.threads):
            one = threading.Thread(target=self._run, daemon=True)
            self._running.append(one)
            one.start()
        return self

    def stop(self) -> list[Seen]:
        self._over.set()
        for one in self._running:
            one.join()
        return sorted(self.seen, key=lambda one: one.asked)

    def _run(self) -> None:
        parts = urlsplit(self.url)
        headers = {"X-API-Key": self.key, "Content-Type": "application/json"}
        while not self._over.wait(self.pause):
            asked = time.time()
            link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
            try:
                link.request("POST", "/api/v1/predict/tiny", BODY, headers)
                reply = link.getresponse()
                reply.read()
            except (OSError, http.client.HTTPException):
                self.broken += 1
                continue
            finally:
                link.close()
            policy = reply.headers.get("RateLimit-Policy", "")
            self.seen.append(Seen(asked, reply.status, policy, time.time() - asked))


def key_on(system: Stack, plan: str) -> tuple[str, str]:
    """Make a key; return its id and its text."""
    body = {"name": plan, "team": "demo", "scopes": ["predict"], "plan": plan}
    made = system.call("POST", "/api/v1/keys", json=body).json()
    return made["id"], made["key"]


def last_of(seen: list[Seen], is_old: Callable[[Seen], bool], after: float) -> float:
    """Return the seconds after a change at which the old behaviour was last asked for."""
    return max((one.asked - after for one in seen if is_old(one)), default=0.0)


def headers(system: Stack) -> bool:
    """Print what curl would, of an answer and of a refusal."""
    system.call("POST", "/api/v1/plans", json=plan_of("two", requests_per_minute=2))
    _, key = key_on(system, "two")
    time.sleep(2)
    said = []
    for _ in range(3):
        reply = system.http.post(
            f"{system.url}/api/v1/predict/tiny",
            content=BODY,
            headers={"X-API-Key": key, "Content-Type": "application/json"},
        )
        wanted = ("ratelimit", "retry-after")
        lines = [
            f"{name}: {value}" for name, value in reply.headers.items() if name.startswith(wanted)
        ]
        print(f"{reply.status_code}  " + "  ".join(lines))
        said.append(reply.status_code)
    print(reply.text)
    return said == [200, 200, 429]


def plan_of(name: str, **numbers: int) -> dict[str, object]:
    return {"name": name, "title": name.title(), "is_offered": False, **numbers}


def changes_are_live(system: Stack) -> bool:
    """Change a plan and revoke a key under load; both workers must follow in five seconds."""
    system.call("POST", "/api/v1/plans", json=plan_of("live", requests_per_minute=100_000))
    key_id, key = key_on(system, "live")
    time.sleep(2)
    callers = Callers(system.url, key).start()
    time.sleep(2)
    system.call("PATCH", "/api/v1/plans/live", json={"requests_per_minute": 90_000})
    changed = time.time()
    time.sleep(4)
    system.call("DELETE", f"/api/v1/keys/{key_id}")
    revoked = time.time()
    time.sleep(4)
    seen = callers.stop()
    plan = last_of(seen, lambda one: "q=100000" in one.policy, changed)
    revoke = last_of(seen, lambda one: one.status == 200, revoked)
    print(
        f"{len(system.workers())} workers, {len(seen)} calls: the old plan was last seen "
        f"{plan:.2f} s after the reply to its change, the revoked key last worked {revoke:.2f} s "
        f"after the reply; statuses {dict(Counter(one.status for one in seen))}, "
        f"{callers.broken} broken"
    )
    fresh = any("q=90000" in one.policy for one in seen)
    return fresh and max(plan, revoke) < LIVE_SECONDS and not callers.broken


def outage(system: Stack, name: str, stop: Callable[[], None]) -> bool:
    """Take Redis away in a minute of its own; nothing may fail, the limit may at most double."""
    plan = f"out-{name}"
    system.call("POST", "/api/v1/plans", json=plan_of(plan, requests_per_minute=MOST))
    _, key = key_on(system, plan)
    time.sleep(2)
    before = a_minute(system, key)
    stop()
    during = a_minute(system, key)
    for words, seen in (("before", before), ("without Redis", during)):
        print(f"  {words}: {told(seen)}")
    passed = [sum(one.status == 200 for one in seen) for seen in (before, during)]
    good = all(one.status in {200, 429} for one in before + during)
    return good and passed[0] == MOST and MOST // 2 <= passed[1] <= 2 * MOST


def back(system: Stack) -> bool:
    """Count a minute exactly once Redis is there again."""
    system.call("POST", "/api/v1/plans", json=plan_of("back", requests_per_minute=MOST))
    _, key = key_on(system, "back")
    time.sleep(8)
    seen = a_minute(system, key)
    print(f"  back: {told(seen)}")
    return sum(one.status == 200 for one in seen) == MOST


def a_minute(system: Stack, key: str) -> list[Seen]:
    """Call for one whole window of a key, well above its limit."""
    callers = Callers(system.url, key, threads=4, pause=0.05)
    reply = system.http.post(
        f"{system.url}/api/v1/predict/tiny",
        content=BODY,
        headers={"X-API-Key": key, "Content-Type": "application/json"},
    )
    time.sleep(int(reply.headers["RateLimit-Reset"]) + 0.5)
    callers.start()
    time.sleep(55)
    return callers.stop()


def told(seen: list[Seen]) -> str:
    slowest = max(one.seconds for one in seen) * 1000
    return f"{dict(Counter(one.status for one in seen))}, slowest {slowest:.0f} ms"


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="mlplatform-limits-"))
    redis = services.start_redis(folder)
    results = {}
    try:
        with stack(
            workers=2,
            postgres=False,
            REDIS_URL=redis.url,
            MLP_BROKER_URL="filesystem://localhost",
            MLP_LIMIT_REFUSED_PER_MINUTE="0",
        ) as system:
            system.release("tiny", system.upload("tiny", tiny_model(0)))
            warm(system)
            results["headers"] = headers(system)
            results["changes are live"] = changes_are_live(system)
            print("Redis hangs (SIGSTOP)")
            results["hang"] = outage(
                system, "hang", lambda: redis.process.send_signal(signal.SIGSTOP)
            )
            redis.process.send_signal(signal.SIGCONT)
            results["back"] = back(system)
            print("Redis is killed")
            results["kill"] = outage(system, "kill", redis.process.kill)
    finally:
        with contextlib.suppress(ProcessLookupError):
            redis.process.send_signal(signal.SIGCONT)
        services.stop(redis)
        shutil.rmtree(folder, ignore_errors=True)
    print(", ".join(f"{name}: {'met' if good else 'NOT MET'}" for name, good in results.items()))
    return 0 if results and all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
