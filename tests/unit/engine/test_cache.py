"""Answers kept for equal questions."""

import numpy as np
import pytest

from apps.inference.engine.cache import ENTRY_BYTES, AnswerCache, CacheKey, cache_key
from tests.fakes.bodies import version_body
from tests.fakes.clock import FakeClock


def key(*values: float, number: int = 1) -> CacheKey:
    return cache_key(version_body(number), {"x": np.array(values, dtype=np.float32)})


def answer(value: float = 1.0) -> dict[str, np.ndarray]:
    return {"y": np.array([value])}


def test_an_equal_question_gets_the_stored_answer() -> None:
    cache = AnswerCache(100_000)
    cache.put(key(1, 2), answer(5.0), ttl_seconds=10)
    found = cache.get(key(1, 2))
    assert found is not None
    assert found["y"].tolist() == [5.0]


@pytest.mark.parametrize(
    "other",
    [
        cache_key(version_body(), {"x": np.array([2, 1], dtype=np.float32)}),
        cache_key(version_body(), {"x": np.array([1, 2], dtype=np.float64)}),
        cache_key(version_body(), {"x": np.array([[1, 2]], dtype=np.float32)}),
        cache_key(version_body(), {"z": np.array([1, 2], dtype=np.float32)}),
        cache_key(version_body(2), {"x": np.array([1, 2], dtype=np.float32)}),
        cache_key(version_body(model="beer"), {"x": np.array([1, 2], dtype=np.float32)}),
        cache_key(version_body(), {"x": np.array([1, 2], dtype=np.float32)}, b'{"k":3}'),
    ],
)
def test_everything_an_answer_depends_on_is_in_the_key(other: object) -> None:
    assert other != key(1, 2)


def test_texts_are_told_apart_by_where_they_end() -> None:
    one = {"x": np.array(["ab", "c"], dtype=object)}
    two = {"x": np.array(["a", "bc"], dtype=object)}
    again = {"x": np.array([str(b"ab", "ascii"), "c"], dtype=object)}
    assert cache_key(version_body(), one) != cache_key(version_body(), two)
    assert cache_key(version_body(), one) == cache_key(version_body(), again)


def test_an_answer_leaves_at_its_age() -> None:
    clock = FakeClock()
    cache = AnswerCache(100_000, clock=clock)
    cache.put(key(1), answer(), ttl_seconds=10)
    clock.advance(9.9)
    assert cache.get(key(1)) is not None
    clock.advance(0.2)
    assert cache.get(key(1)) is None
    assert cache.used_bytes == 0


def test_the_cache_never_holds_more_bytes_than_it_may() -> None:
    cache = AnswerCache(10 * (ENTRY_BYTES + 8))
    for n in range(50):
        cache.put(key(n), answer(), ttl_seconds=10)
        assert cache.used_bytes <= 10 * (ENTRY_BYTES + 8)
    assert len(cache) == 10


def test_the_least_recently_used_answer_leaves_first() -> None:
    cache = AnswerCache(10 * (ENTRY_BYTES + 8))
    for n in range(10):
        cache.put(key(n), answer(), ttl_seconds=10)
    assert cache.get(key(0)) is not None
    cache.put(key(99), answer(), ttl_seconds=10)
    assert cache.get(key(0)) is not None
    assert cache.get(key(1)) is None


def test_one_large_answer_does_not_push_out_the_others() -> None:
    cache = AnswerCache(10 * (ENTRY_BYTES + 8))
    cache.put(key(1), answer(), ttl_seconds=10)
    cache.put(key(2), {"y": np.zeros(100_000)}, ttl_seconds=10)
    assert cache.get(key(2)) is None
    assert cache.get(key(1)) is not None


def test_a_stored_answer_keeps_neither_its_batch_alive_nor_can_it_be_changed() -> None:
    cache = AnswerCache(100_000)
    batch = np.arange(1000.0)
    cache.put(key(1), {"y": batch[3:4]}, ttl_seconds=10)
    found = cache.get(key(1))
    assert found is not None
    assert found["y"].base is None
    with pytest.raises(ValueError, match="read-only"):
        found["y"][0] = 0


def test_putting_again_counts_once() -> None:
    cache = AnswerCache(100_000)
    cache.put(key(1), answer(), ttl_seconds=10)
    before = cache.used_bytes
    cache.put(key(1), answer(), ttl_seconds=10)
    assert cache.used_bytes == before
