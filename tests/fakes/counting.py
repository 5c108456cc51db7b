"""A process of its own that charges calls and says how many passed: ``python counting.py``.

Arguments: the counters (``file:<path>`` or a Redis URL), how many calls, how many threads, the Unix
second that its clock stands at, and the plan as JSON. It begins when a line comes on stdin.
"""

import json
import sys
import threading
from pathlib import Path

from apps.accounts.callers import Caller
from apps.accounts.counters.node_file import NodeCounters
from apps.accounts.counters.redis_store import RedisCounters
from apps.accounts.limits import Counters, Limiter
from apps.accounts.snapshot import KeyBody, PlanBody
from apps.core.errors import RateLimited


def counters_of(place: str) -> Counters:
    if place.startswith("file:"):
        return NodeCounters(Path(place.removeprefix("file:")))
    return RedisCounters(place, node="test", timeout_seconds=5)


def main() -> None:
    place, calls, threads, now, plan = sys.argv[1:]
    limiter = Limiter(counters_of(place), clock=lambda: float(now))
    key = KeyBody("counted", "", 1, 1, (), (), (), None)
    body = PlanBody(**json.loads(plan))
    who = Caller(1, "ada", False, {}, frozenset(), key=key, plan=body)
    passed: list[int] = []

    def run() -> None:
        for _ in range(int(calls) // int(threads)):
            try:
                limiter.enter(who, None).spend(1)
            except RateLimited:
                continue
            passed.append(1)

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    pool = [threading.Thread(target=run) for _ in range(int(threads))]
    for one in pool:
        one.start()
    for one in pool:
        one.join()
    sys.stdout.write(f"{len(passed)}\n")


if __name__ == "__main__":
    main()
