"""One spooled record as a row of the table.

What stands in a file is checked as if a stranger had written it: a record that cannot be a row must
not stop those behind it. The database has the last word (``shipper`` halves what it refuses).
"""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from apps.core import ids
from apps.inference.engine.spool import record_from

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """The columns of ``Prediction`` in the order in which they are copied."""

    id: str
    ts: datetime
    model: str
    environment: str
    team_id: int
    version: int
    release: int | None
    arm: str
    variant: str
    experiment: str
    unit: str
    key_id: str
    user_id: int | None
    source: str
    status: str
    rows: int
    cached: bool
    total_ms: float
    queue_ms: float
    inference_ms: float
    error: str
    request_id: str
    client_id: str
    seq: int
    writer: str
    inputs: Any
    outputs: Any


class Whence(NamedTuple):
    """Where a call came from and by what program; it tells of the key, not of the prediction."""

    address: str = ""
    agent: str = ""


class Arrival(NamedTuple):
    """What stood in one record."""

    row: Row
    whence: Whence


_NONE = type(None)
_ANY: tuple[type, ...] = (str, int, float, bool, list, dict, _NONE)
# ``bool`` is a kind of ``int`` to Python, hence exact types.
_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "ts_ms": (int,),
    **dict.fromkeys(
        ("model", "environment", "arm", "source", "status", "request_id", "writer"), (str,)
    ),
    **dict.fromkeys(
        ("variant", "experiment", "unit", "key_id", "error", "client_id"), (str, _NONE)
    ),
    **dict.fromkeys(("team_id", "version", "rows", "seq"), (int,)),
    **dict.fromkeys(("release", "user_id"), (int, _NONE)),
    **dict.fromkeys(("total_ms", "queue_ms", "inference_ms"), (float, int)),
    "cached": (bool,),
    **dict.fromkeys(("inputs", "outputs"), _ANY),
}


def row_from(payload: bytes) -> Row:
    """Read one record as a row; ``ValueError`` says why it cannot be one."""
    return arrival_from(payload).row


def arrival_from(payload: bytes) -> Arrival:
    """Read one record; ``ValueError`` says why it cannot be a row.

    Fields that are not known here are left out: a newer writer may already note more. An older one
    did not note where a call came from.
    """
    fields = record_from(payload)
    whence = Whence(_text(fields.get("address")), _text(fields.get("agent")))
    return Arrival(_row(fields), whence)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _row(fields: dict[str, Any]) -> Row:
    for name, kinds in _TYPES.items():
        if name not in fields:
            raise ValueError(f"The record has no `{name}`.")
        if type(fields[name]) not in kinds:
            raise ValueError(f"The record's `{name}` is a {type(fields[name]).__name__}.")
    return Row(
        id=_checked_id(fields["id"], fields["ts_ms"]),
        ts=time_of(fields["ts_ms"]),
        model=fields["model"],
        environment=fields["environment"],
        team_id=fields["team_id"],
        version=fields["version"],
        release=fields["release"],
        arm=fields["arm"],
        variant=fields["variant"] or "",
        experiment=fields["experiment"] or "",
        unit=fields["unit"] or "",
        key_id=fields["key_id"] or "",
        user_id=fields["user_id"],
        source=fields["source"],
        status=fields["status"],
        rows=fields["rows"],
        cached=fields["cached"],
        total_ms=fields["total_ms"],
        queue_ms=fields["queue_ms"],
        inference_ms=fields["inference_ms"],
        error=fields["error"] or "",
        request_id=fields["request_id"],
        client_id=fields["client_id"] or "",
        seq=fields["seq"],
        writer=fields["writer"],
        inputs=fields["inputs"],
        outputs=fields["outputs"],
    )


def _checked_id(text: str, ts_ms: int) -> str:
    # Look-ups by id derive the partition from the id, so the two must agree.
    if len(text) != 36 or ids.milliseconds_of(text) != ts_ms:
        raise ValueError("The record's `id` is not a UUIDv7 of its `ts_ms`.")
    return text.lower()


def time_of(ts_ms: int) -> datetime:
    """Return a record's time; ``ValueError`` when it is none."""
    try:
        return EPOCH + timedelta(milliseconds=ts_ms)
    except OverflowError as error:
        raise ValueError("The record's `ts_ms` is no time.") from error
