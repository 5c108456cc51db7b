"""The format of API keys."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts import keys
from apps.accounts.keys import ALPHABET, SCANNER_REGEX, KeyKind
from apps.core.logs import without_secrets

KINDS = st.sampled_from(list(KeyKind))
TEXT = str(keys.make(KeyKind.LIVE))


@given(KINDS)
def test_a_made_key_is_read_back_as_it_was_made(kind: KeyKind) -> None:
    made = keys.make(kind)
    assert keys.parse(str(made)) == made
    assert re.fullmatch(rf"mlp_{kind}_[0-9A-Za-z]{{12}}_[0-9A-Za-z]{{38}}", str(made))


@given(st.integers(0, len(TEXT) - 1), st.sampled_from(ALPHABET + "_-"))
def test_one_wrong_character_is_found_without_a_look_up(place: int, other: str) -> None:
    typo = TEXT[:place] + other + TEXT[place + 1 :]
    assert typo == TEXT or keys.parse(typo) is None


@pytest.mark.parametrize(
    "text", ["", "mlp_", TEXT[:-1], TEXT + "x", f" {TEXT}", TEXT + "\n", "ü" * 60]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    assert keys.parse(text) is None


def test_two_keys_are_never_alike() -> None:
    made = [keys.make(KeyKind.LIVE) for _ in range(50)]
    assert len({one.secret for one in made}) == len({one.id for one in made}) == 50


def test_only_the_right_secret_matches_the_kept_digest() -> None:
    one, other = keys.make(KeyKind.LIVE), keys.make(KeyKind.LIVE)
    assert one.matches(one.sha256)
    assert not other.matches(one.sha256)
    assert one.secret not in one.sha256


def test_the_published_expression_finds_a_key_in_a_text() -> None:
    assert re.search(SCANNER_REGEX, f'key = "{TEXT}";')[0] == TEXT  # type: ignore[index]


def test_neither_repr_nor_the_log_shows_the_secret() -> None:
    made = keys.make(KeyKind.TEST)
    assert made.secret not in repr(made)
    assert made.secret not in without_secrets(f"got {made}")
