"""Predictions as records, spool files and rows; a test states only what it is about."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.utils import timezone

from apps.core import ids
from apps.inference.engine.journal import PredictionRecord
from apps.inference.engine.spool import Spool
from apps.inference.models import Prediction
from apps.registry.snapshot import FullSpool

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def record(*, ts: datetime | None = None, **given: Any) -> PredictionRecord:
    """Return a valid record of a call accepted at ``ts`` (now)."""
    ts_ms = ((ts or timezone.now()) - EPOCH) // timedelta(milliseconds=1)
    plain = PredictionRecord(
        id=ids.new_id(ts_ms),
        ts_ms=ts_ms,
        model="wine",
        environment="production",
        team_id=1,
        version=1,
        release=1,
        arm="primary",
        variant=None,
        experiment=None,
        unit=None,
        key_id="key0123456ab",
        user_id=None,
        source="api",
        status="ok",
        rows=1,
        cached=False,
        total_ms=1.25,
        queue_ms=0.25,
        inference_ms=0.5,
        inputs=[{"age": 41}],
        outputs={"label": [2]},
        error=None,
        request_id="r-1",
        client_id=None,
    )
    return replace(plain, **given)


def spooled(folder: Path, records: Iterable[PredictionRecord]) -> list[PredictionRecord]:
    """Write records as one sealed segment, as a serving process does; return them."""
    spool = Spool(folder)
    kept = list(records)
    for one in kept:
        spool.note(one, policy=FullSpool.REQUIRED)
    spool.close()
    return kept


def prediction(*, ts: datetime | None = None, **given: Any) -> Prediction:
    """Return a stored prediction, without its counts."""
    plain = record(ts=ts)
    # From where a call came is kept with the key, and not with the prediction.
    names = set(PredictionRecord.__slots__) - {"address", "agent"}
    fields = {name: getattr(plain, name) for name in names}
    at = EPOCH + timedelta(milliseconds=fields.pop("ts_ms"))
    texts = {"variant", "experiment", "unit", "key_id", "error", "client_id"}
    fields = {
        name: "" if value is None and name in texts else value for name, value in fields.items()
    }
    return Prediction.objects.create(
        **{**fields, "ts": at, "id": UUID(plain.id), "seq": 1, "writer": "w", **given}
    )
