"""What of a record everybody sees."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.inference.veils import REDACTED, veiled

SECRET = "Lovelace"


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ([{"age": 1, "name": SECRET}], [{"age": 1, "name": REDACTED}]),
        ({"age": [1, 2], "name": [SECRET, "B"]}, {"age": [1, 2], "name": [REDACTED, REDACTED]}),
        ([[1, SECRET], [2, "B"]], [[REDACTED, REDACTED], [REDACTED, REDACTED]]),
        (
            {"digest": {"name": {"first": [SECRET]}, "age": {"first": [1]}}},
            {"digest": {"name": REDACTED, "age": {"first": [1]}}},
        ),
        ({"x": [[1, SECRET]], "y": 2}, {"x": [REDACTED], "y": 2}),
        (SECRET, REDACTED),
        (None, None),
    ],
)
def test_a_field_with_a_rule_is_only_named(recorded: Any, shown: Any) -> None:
    assert veiled(recorded, frozenset({"name"}), {"x": ("age", "name")}) == shown


def test_without_a_rule_nothing_is_hidden() -> None:
    assert veiled([[1, SECRET]], frozenset(), {}) == [[1, SECRET]]


VALUES = st.recursive(
    st.sampled_from([1, 2.5, None, True, "plain"]), lambda inner: st.lists(inner, max_size=3)
)


@given(
    rows=st.lists(st.fixed_dictionaries({"age": VALUES}), max_size=4),
    names=st.lists(st.just(SECRET), max_size=4),
)
def test_no_shape_of_a_record_shows_a_hidden_value(rows: list[Any], names: list[str]) -> None:
    hidden = frozenset({"name"})
    for recorded in (
        [{**row, "name": [name]} for row, name in zip(rows, names, strict=False)],
        {"age": rows, "name": names},
        [[row, name] for row, name in zip(rows, names, strict=False)],
        {"digest": {"name": {"first": names}, "age": rows}},
    ):
        assert SECRET not in repr(veiled(recorded, hidden, {}))
