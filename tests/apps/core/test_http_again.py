"""What may be repeated is tried again within bounds; a host that keeps failing is left alone."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from apps.core import http, metrics
from tests.apps.core.test_http import OK, Server, says, served

BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
NO = b"HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@pytest.fixture(autouse=True)
def pauses(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The pauses that would have been made."""
    settings.OUTBOUND_ALLOW = frozenset({"127.0.0.1"})
    settings.OUTBOUND_PROXY = ""
    made: list[float] = []
    monkeypatch.setattr(http, "_pause", made.append)
    http.forget_breakers()
    yield made
    http.forget_breakers()


def in_turn(*answers: bytes) -> Callable[[Any], None]:
    left = list(answers)
    return lambda line: line.sendall(left.pop(0) if len(left) > 1 else left[0])


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/x"


def state(server: Server) -> float | None:
    return metrics.REGISTRY.get_sample_value(
        "mlplatform_breaker_state", {"host": f"127.0.0.1:{server.port}"}
    )


def outcomes(word: str) -> float:
    name = "mlplatform_http_outbound_total"
    return metrics.REGISTRY.get_sample_value(name, {"outcome": word}) or 0.0


def test_a_call_that_may_be_repeated_is_tried_again_after_a_random_pause(
    pauses: list[float],
) -> None:
    with served(in_turn(BUSY, b"", OK)) as server:
        assert http.send("GET", url(server)).status == 200
        assert len(server.asked) == 3
    assert len(pauses) == 2
    assert all(0 <= one <= http.LONGEST_PAUSE for one in pauses)


def test_the_last_answer_stands_when_no_try_helped() -> None:
    with served(says(BUSY)) as server:
        assert http.send("GET", url(server)).status == 503
        assert len(server.asked) == http.MOST_TRIES


@pytest.mark.parametrize(("method", "signed", "tries"), [("POST", None, 1), ("POST", True, 3)])
def test_a_message_is_sent_twice_only_if_its_receiver_can_tell(
    method: str, signed: bool | None, tries: int
) -> None:
    with served(says(BUSY)) as server:
        http.send(method, url(server), is_repeatable=signed)
        assert len(server.asked) == tries


def test_what_was_said_no_to_is_not_asked_again() -> None:
    with served(says(NO)) as server:
        assert http.send("GET", url(server)).status == 404
        assert len(server.asked) == 1


def test_tries_end_with_the_time_for_one_exchange(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TOTAL_SECONDS", 0.0)
    with served(says(OK)) as server, pytest.raises(http.OutboundUnavailable):
        http.send("GET", url(server))
    assert pauses == []


def test_a_host_that_fails_five_times_in_a_row_is_left_alone_and_shown_as_open() -> None:
    with served(says(BUSY)) as server:
        assert state(server) is None
        for _ in range(http.BREAKS_AFTER):
            assert http.send("POST", url(server)).status == 503
        assert state(server) == 2
        broken = outcomes("broken")
        with pytest.raises(http.OutboundBroken) as told:
            http.send("POST", url(server))
        assert outcomes("broken") == broken + 1
        assert told.value.retryable
        assert len(server.asked) == http.BREAKS_AFTER, "the host was left alone"


def test_after_the_pause_one_good_answer_closes_the_breaker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "BROKEN_SECONDS", 0.0)
    with served(in_turn(*[BUSY] * http.BREAKS_AFTER, OK)) as server:
        for _ in range(http.BREAKS_AFTER):
            http.send("POST", url(server))
        assert state(server) == 2
        assert http.send("POST", url(server)).status == 200
        assert state(server) == 0


def test_a_good_answer_between_failures_begins_the_count_anew() -> None:
    answers = [BUSY] * (http.BREAKS_AFTER - 1)
    with served(in_turn(*answers, OK, *answers, OK)) as server:
        for _ in range(2 * http.BREAKS_AFTER):
            http.send("POST", url(server))
        assert state(server) == 0


def test_a_refusal_of_ours_or_a_no_does_not_break_a_host() -> None:
    with served(says(NO)) as server:
        for _ in range(2 * http.BREAKS_AFTER):
            http.send("POST", url(server))
        assert state(server) == 0


def test_one_broken_host_does_not_touch_another() -> None:
    with served(says(BUSY)) as bad, served(says(OK)) as good:
        for _ in range(http.BREAKS_AFTER):
            http.send("POST", url(bad))
        assert http.send("POST", url(good)).status == 200
        assert (state(bad), state(good)) == (2, 0)


def test_breakers_are_bounded_and_a_forgotten_one_leaves_no_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "MOST_BREAKERS", 1)
    with served(says(OK)) as first, served(says(OK)) as second:
        http.send("POST", url(first))
        http.send("POST", url(second))
        assert state(first) is None
        assert state(second) == 0
