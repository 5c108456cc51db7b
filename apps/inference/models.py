"""The record of predictions, and the counts made of it.

``Prediction`` is an ordinary table on SQLite. On PostgreSQL it is partitioned by day of ``ts`` with
the primary key (ts, id); Django believes in ``id`` alone, which is unique because it is a UUIDv7
whose millisecond is ``ts``. No foreign key points at it or leaves it: a prediction outlives what it
names.
"""

from typing import Any

from django.db import models
from django.db.models import Q

from apps.inference.engine.buckets import HourKey, MinuteKey, SpanKey, Tally


class Prediction(models.Model):
    """One call that reached a version: answered, or failed on the way.

    The fields are those of ``engine.journal.PredictionRecord``; a text that was not given is empty.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    ts = models.DateTimeField("time")
    model = models.CharField(max_length=200)
    environment = models.CharField(max_length=32)
    team_id = models.BigIntegerField()
    version = models.IntegerField()
    release = models.IntegerField(null=True)
    arm = models.CharField(max_length=32)
    variant = models.CharField(max_length=200)
    experiment = models.CharField(max_length=200)
    unit = models.CharField(max_length=200)
    key_id = models.CharField("key", max_length=64)
    user_id = models.BigIntegerField("user", null=True)
    source = models.CharField(max_length=32)
    status = models.CharField(max_length=64)
    rows = models.IntegerField()
    cached = models.BooleanField()
    total_ms = models.FloatField("total, ms")
    queue_ms = models.FloatField("queue, ms")
    inference_ms = models.FloatField("inference, ms")
    error = models.TextField()
    request_id = models.CharField("request id", max_length=128)
    client_id = models.CharField("client's id", max_length=200)
    seq = models.BigIntegerField("number of its writer")
    writer = models.CharField(max_length=100)
    inputs = models.JSONField(null=True)
    outputs = models.JSONField(null=True)

    class Meta:
        indexes = [
            # The newest first, page by page; on PostgreSQL this is the primary key.
            models.Index(fields=["ts", "id"], name="prediction_by_time"),
            # The same, narrowed by what people narrow it by.
            models.Index(fields=["team_id", "ts"], name="prediction_of_team"),
            models.Index(fields=["model", "ts"], name="prediction_of_model"),
            models.Index(fields=["model", "version", "ts"], name="prediction_of_version"),
            models.Index(fields=["key_id", "ts"], name="prediction_of_key"),
            models.Index(fields=["status", "ts"], name="prediction_of_status"),
            # All that one unit left, to be shown or erased; most calls name no unit.
            models.Index(
                fields=["unit", "ts"], name="prediction_of_unit", condition=Q(unit__gt="")
            ),
        ]
        permissions = [("read_redacted", "Can read what is kept of redacted fields")]

    def __str__(self) -> str:
        return str(self.pk)


class PredictionRejected(models.Model):
    """A spooled record that the database refused; put aside so that it blocks no other."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    payload = models.BinaryField()
    error = models.TextField()
    at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = "rejected prediction"

    def __str__(self) -> str:
        return self.sha256[:12]


class Erasure(models.Model):
    """Somebody's request that all is removed that one unit left, and what was removed.

    It outlives the rows: a record of before its time that arrives later is dropped on arrival. The
    unit itself stands here only until the work is done; its digests find it among late records.
    """

    # Keyed hashes of the unit, by the newest key first.
    digests = models.JSONField(default=list)
    unit = models.CharField(max_length=200, blank=True)
    # None for all teams; the empty text for all models.
    team_id = models.BigIntegerField(null=True)
    model = models.CharField(max_length=200, blank=True)
    # Records of before this time are erased, of whenever they arrive.
    before = models.DateTimeField(db_index=True)
    actor_kind = models.CharField(max_length=16)
    actor_id = models.CharField(max_length=64, blank=True)
    actor_name = models.CharField(max_length=200)
    reason = models.TextField(blank=True)
    # Name of each kind of record to how many of them were removed.
    counts = models.JSONField(default=dict)
    oldest = models.DateTimeField(null=True)
    newest = models.DateTimeField(null=True)
    finished = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"unit {self.short_digest}"

    @property
    def short_digest(self) -> str:
        """What of the unit may be shown: the beginning of its keyed hash."""
        return str(self.digests[0])[:17] if self.digests else ""


class PredictionDay(models.Model):
    """One day of the record, as a thing that an event can name; there is no such table."""

    day = models.DateField(primary_key=True)

    class Meta:
        managed = False
        default_permissions = ()

    def __str__(self) -> str:
        return f"predictions of {self.day}"


class Counts(models.Model):
    """Columns of every rollup; ``engine.buckets`` says what they mean and how they merge."""

    count = models.BigIntegerField(default=0)
    rows = models.BigIntegerField(default=0)
    cache_hits = models.BigIntegerField(default=0)
    latency_us = models.BigIntegerField(default=0)
    # Bucket number to how many calls fell into it.
    histogram = models.JSONField(default=dict)

    class Meta:
        abstract = True

    def absorb(self, tally: Tally) -> None:
        """Add counts to this row's own."""
        self.count += tally.count
        self.rows += tally.rows
        self.cache_hits += tally.cache_hits
        self.latency_us += tally.latency_us
        _add_by_name(self.histogram, tally.histogram)

    def buckets(self) -> dict[int, int]:
        """Return the histogram by number of its bucket."""
        return {int(bucket): count for bucket, count in self.histogram.items()}


class PredictionMinute(Counts):
    """Counts of one minute by endpoint, version, arm and status."""

    minute = models.DateTimeField()
    model = models.CharField(max_length=200)
    environment = models.CharField(max_length=32)
    version = models.IntegerField()
    arm = models.CharField(max_length=32)
    status = models.CharField(max_length=64)
    errors = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=list(MinuteKey._fields), name="one_row_per_minute")
        ]
        indexes = [
            # The traffic of one model over a span of time.
            models.Index(fields=["model", "minute"], name="minute_of_model")
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.version} {self.status} at {self.minute:%Y-%m-%d %H:%M}"

    def absorb(self, tally: Tally) -> None:
        super().absorb(tally)
        self.errors += sum(tally.errors.values())

    def key(self) -> MinuteKey:
        """Return what makes this row the only one of its kind."""
        return MinuteKey(*(getattr(self, name) for name in MinuteKey._fields))


class KeyHour(Counts):
    """Usage of one hour by API key and version; calls without a key have the empty one."""

    hour = models.DateTimeField()
    key_id = models.CharField(max_length=64)
    model = models.CharField(max_length=200)
    version = models.IntegerField()
    # Error code to how many calls ended with it.
    errors = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=list(HourKey._fields), name="one_row_per_key_hour")
        ]
        indexes = [
            # The usage of one key over a span of time.
            models.Index(fields=["key_id", "hour"], name="hour_of_key")
        ]

    def __str__(self) -> str:
        return f"{self.key_id or 'no key'} {self.model} {self.version} at {self.hour:%Y-%m-%d %H}h"

    def absorb(self, tally: Tally) -> None:
        super().absorb(tally)
        _add_by_name(self.errors, tally.errors)

    def key(self) -> HourKey:
        """Return what makes this row the only one of its kind."""
        return HourKey(*(getattr(self, name) for name in HourKey._fields))


class PredictionSpan(Counts):
    """Traffic of five minutes to a day by version and status; also by team, and of all.

    Pages over long ranges read these few rows instead of the many minutes. Rows of a whole team
    have no model (the empty text, version 0), those of all teams have team 0 besides.
    """

    start = models.DateTimeField()
    seconds = models.IntegerField()
    team_id = models.BigIntegerField()
    model = models.CharField(max_length=200)
    environment = models.CharField(max_length=32)
    version = models.IntegerField()
    status = models.CharField(max_length=64)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=list(SpanKey._fields), name="one_row_per_span")
        ]
        indexes = [
            # The traffic of one model, or of whole teams (who have the empty model).
            models.Index(fields=["model", "seconds", "start", "team_id"], name="span_of_model"),
            # All models ranked by their requests, from the index alone.
            models.Index(
                fields=["seconds", "start", "team_id", "model", "count"], name="span_by_time"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model or 'all models'} {self.status}, {self.seconds} s from {self.start}"

    def key(self) -> SpanKey:
        """Return what makes this row the only one of its kind."""
        return SpanKey(*(getattr(self, name) for name in SpanKey._fields))


class WorkerStatus(models.Model):
    """What one serving process runs, as the agent of its node last told.

    The truth is in the process' own report on its node; this row is for people who look, and it
    may be some seconds old. ``worker_status`` writes it and says what it means.
    """

    node = models.CharField(max_length=200)
    # The process id: unique on its node only.
    worker = models.BigIntegerField()
    generation = models.BigIntegerField()
    state = models.CharField(max_length=16)
    # Endpoint key to the number of the release that is followed.
    routes = models.JSONField(default=dict)
    # Keys of the versions in memory, "wine/3".
    loaded = models.JSONField(default=list)
    # Endpoint key to the reason why its newest release is not followed yet.
    failures = models.JSONField(default=dict)
    seen_at = models.DateTimeField()

    class Meta:
        verbose_name = "worker's status"
        verbose_name_plural = "workers' status"
        constraints = [
            models.UniqueConstraint(fields=["node", "worker"], name="one_status_per_worker")
        ]

    def __str__(self) -> str:
        return f"{self.node} {self.worker}"


def _add_by_name(here: dict[str, Any], more: "dict[int, int] | dict[str, int]") -> None:
    for name, count in more.items():
        here[str(name)] = here.get(str(name), 0) + count
