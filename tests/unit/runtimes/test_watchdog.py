"""One thread ends all late runs, and only those."""

import threading
import time

from apps.inference.runtimes.watchdog import Watchdog


def test_only_the_late_run_is_ended() -> None:
    dog, late = Watchdog(), threading.Event()
    on_time = dog.watch(time.monotonic() + 0.05, lambda: None)
    on_time.release()
    guard = dog.watch(time.monotonic() + 0.1, late.set)
    assert late.wait(30)
    assert guard.fired
    assert not on_time.fired


def test_a_run_with_an_earlier_deadline_does_not_wait_for_a_later_one() -> None:
    dog, early, late = Watchdog(), threading.Event(), threading.Event()
    dog.watch(time.monotonic() + 3600, late.set)
    dog.watch(time.monotonic() + 0.05, early.set)
    assert early.wait(30)
    assert not late.is_set()


def test_a_run_that_was_released_is_never_ended() -> None:
    dog, ended = Watchdog(), threading.Event()
    guard = dog.watch(time.monotonic(), ended.set)
    guard.release()
    was_fired = guard.fired
    guard.fire()
    assert ended.is_set() is was_fired
