"""What of a recorded prediction is shown to everybody: fields with a rule are only named; plain.

What the record keeps of such a field (its keyed hash, its mask) is nobody's business by the way: it
is shown to those who may see it and say why. A record from before the rule is hidden alike.
"""

from collections.abc import Mapping
from typing import Any

REDACTED = "redacted"
DIGEST = "digest"

Columns = Mapping[str, tuple[str, ...]]


def veiled(value: Any, hidden: frozenset[str], columns: Columns) -> Any:
    """Return recorded inputs or outputs with a word in the place of each hidden field.

    Args:
        value: Rows, an object of columns, or a digest.
        hidden: Names of fields that have a rule.
        columns: Name of each tensor to the names of its columns, where it has some.
    """
    if not hidden or value is None:
        return value
    if isinstance(value, Mapping):
        return _object(value, hidden, columns)
    if isinstance(value, list):
        return [_row(row, hidden, columns) for row in value]
    return REDACTED


def _object(value: Mapping[str, Any], hidden: frozenset[str], columns: Columns) -> dict[str, Any]:
    return {
        name: _object(one, hidden, columns)
        if name == DIGEST and isinstance(one, Mapping) and DIGEST not in hidden
        else _stand_in(one)
        if _is_hidden(name, hidden, columns)
        else one
        for name, one in value.items()
    }


def _row(row: Any, hidden: frozenset[str], columns: Columns) -> Any:
    if isinstance(row, Mapping):
        return _object(row, hidden, columns)
    # Which of the values has which name cannot be seen; those of a record made under the rule can.
    return _stand_in(row)


def _is_hidden(name: str, hidden: frozenset[str], columns: Columns) -> bool:
    return name in hidden or bool(hidden.intersection(columns.get(name, ())))


def _stand_in(value: Any) -> Any:
    """Keep how many values there are, so that rows still stand beside each other."""
    return [REDACTED] * len(value) if isinstance(value, list) else REDACTED
