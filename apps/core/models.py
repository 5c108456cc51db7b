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
            # The newest of a verb, also of a rare one.
            models.Index(fields=["verb", "-id"], name="event_of_verb"),
        ]

    def __str__(self) -> str:
        return f"event {self.pk}"


class EventSeal(models.Model):
    """One link of the hash chain over events, in the order in which they were sealed."""

    seq = models.BigIntegerField(primary_key=True)
    event = models.OneToOneField(Event, on_delete=models.PROTECT, related_name="seal")
    prev_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)
    # How the hash was made; what was sealed before a key was set stays as it is.
    scheme = models.CharField(max_length=32, default="sha256", db_default="sha256")
    sealed_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"seal {self.seq}"


class AuditAnchor(models.Model):
    """The platform's own note of a head that it wrote down outside the database.

    A verification reads the anchors from there; this row only tells that there was one.
    """

    number = models.BigIntegerField(unique=True)
    seq = models.BigIntegerField()
    hash = models.CharField(max_length=64)
    # SHA-256 of what was written, so that a missing or another one is known.
    digest = models.CharField(max_length=64)
    place = models.CharField(max_length=500)
    at = models.DateTimeField()

    class Meta:
        ordering = ("-number",)

    def __str__(self) -> str:
        return f"anchor {self.number}"


class AuditPurge(models.Model):
    """A tombstone: what stood at the beginning of the chain and was removed after its time."""

    from_seq = models.BigIntegerField(unique=True)
    to_seq = models.BigIntegerField(unique=True)
    count = models.BigIntegerField()
    prev_hash = models.CharField(max_length=64)
    last_hash = models.CharField(max_length=64)
    # SHA-256 over the hashes of all links that went.
    range_digest = models.CharField(max_length=64)
    newest_at = models.DateTimeField()
    purged_at = models.DateTimeField()
    actor_name = models.CharField(max_length=200)
    # SHA-256 over all of the above and the tombstone before this one; a sealed event repeats it.
    digest = models.CharField(max_length=64)

    class Meta:
        ordering = ("to_seq",)

    def __str__(self) -> str:
        return f"events {self.from_seq} to {self.to_seq}, purged"


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
