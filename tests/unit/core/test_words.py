"""Words for numbers."""

import pytest

from apps.core.words import rate_words


@pytest.mark.parametrize(
    ("count", "seconds", "words"),
    [
        (7200, 3600, "2/s"),
        (120, 3600, "2/min"),
        (2, 3600, "2/h"),
        (6, 86_400, "6/day"),
        (1, 86_400, "1/day"),
        (1, 30 * 86_400, "< 1/day"),
        (0, 3600, "0/h"),
    ],
)
def test_a_rate_is_said_in_the_unit_in_which_it_is_at_least_one(
    count: int, seconds: int, words: str
) -> None:
    assert rate_words(count / seconds) == words
