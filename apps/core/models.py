"""Tables that every floor writes in its own transactions."""

from django.db import models
from django.db.models import Q


class Event(models.Model):
    """Who did what, to which thing, and why; written once, never updated.

    It is the audit record, the history shown in the admin, and the outbox.
    """

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_index=True)
    verb = models.CharField(max_length=64)
    actor_kind = models.CharField(max_length=16)
    actor_id = models.CharField(max_length=64, blank=True)
    actor_name = models.CharField(max_length=200)
    address = models.CharField(max_length=64, blank=True)
    team_id = models.BigIntegerField(null=True, blank=True)
    target_kind = models.CharField(max_length=64)
    target_id = models.CharField(max_length=64)
    target_name = models.CharField(max_length=300)
    reason = models.TextField(blank=True)
    facts = models.JSONField(default=dict, blank=True)
    request_id = models.CharField(max_length=128, blank=True)

    class Meta:
        indexes = [
            # The history of one thing.
            models.Index(fields=["target_kind", "target_id", "-id"], name="event_of_target"),
            # What happened in a team.
            models.Index(fields=["team_id", "-id"], name="event_of_team"),
        ]

    def __str__(self) -> str:
        return f"event {self.pk}"


class EventSeal(models.Model):
    """One link of the hash chain over events, in the order in which they were sealed."""

    seq = models.BigIntegerField(primary_key=True)
    event = models.OneToOneField(Event, on_delete=models.PROTECT, related_name="seal")
    prev_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)
    sealed_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"seal {self.seq}"


class Work(models.Model):
    """One piece of background work; the broker only hints at it."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    name = models.CharField(max_length=100)
    args = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    attempts = models.PositiveIntegerField(default=0)
    token = models.CharField(max_length=36, blank=True)
    not_before = models.DateTimeField()
    lease_until = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    # What went wrong as the log has it, for operators; and in words that anybody may read.
    error = models.TextField(blank=True)
    problem = models.TextField(blank=True, default="", db_default="")
    created = models.DateTimeField(auto_now_add=True)
    finished = models.DateTimeField(null=True, blank=True)

    # What it is about, as an event names its target; its page shows the newest work.
    subject_kind = models.CharField(max_length=64, blank=True, default="", db_default="")
    subject_id = models.CharField(max_length=64, blank=True, default="", db_default="")

    # How far the try under way, or the last one, has come. ``stages`` holds [words, Unix seconds].
    stage = models.CharField(max_length=200, blank=True, default="", db_default="")
    stages = models.JSONField(null=True, blank=True)
    done = models.BigIntegerField(null=True, blank=True)
    total = models.BigIntegerField(null=True, blank=True)
    started = models.DateTimeField(null=True, blank=True)
    updated = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "work"
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running", "done", "failed"]),
                name="work_state_is_known",
            )
        ]
        indexes = [
            # What the reaper looks at; finished work is not in it.
            models.Index(
                fields=["state", "not_before"],
                name="work_unfinished",
                condition=Q(state__in=["queued", "running"]),
            ),
            # The newest work on one thing.
            models.Index(
                fields=["subject_kind", "subject_id", "-id"],
                name="work_of_subject",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.pk} ({self.state})"


class SnapshotClock(models.Model):
    """The one row whose lock orders all snapshot changes.

    ``epoch`` changes when the database was restored: then generations may repeat, and every reader
    starts afresh.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    epoch = models.CharField(max_length=36)
    generation = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_snapshot_clock")]

    def __str__(self) -> str:
        return f"generation {self.generation}"


class SnapshotEntry(models.Model):
    """The newest state of one thing that serving processes must know."""

    kind = models.CharField(max_length=16)
    key = models.CharField(max_length=200)
    generation = models.BigIntegerField(unique=True)
    body = models.JSONField(null=True)
    sha256 = models.CharField(max_length=64)
    deleted = models.BooleanField(default=False)

    class Meta:
        verbose_name_plural = "snapshot entries"
        constraints = [models.UniqueConstraint(fields=["kind", "key"], name="one_entry_per_thing")]

    def __str__(self) -> str:
        return f"{self.kind} {self.key} @{self.generation}"
