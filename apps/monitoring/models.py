"""Who was told what, and how far the news have been read."""

from django.conf import settings
from django.db import models
from django.db.models import Q


class Notification(models.Model):
    """One piece of news for one person; the bell shows it."""

    class Kind(models.TextChoices):
        APPROVAL_WANTED = "approval_wanted", "Approval wanted"
        VERSION_READY = "version_ready", "Version ready"
        VERSION_REJECTED = "version_rejected", "Version rejected"
        RELEASE_LIVE = "release_live", "Release live"
        RELEASE_REJECTED = "release_rejected", "Release rejected"
        ROLLED_BACK = "rolled_back", "Rolled back"
        TEAM_JOINED = "team_joined", "Added to a team"
        ROLE_CHANGED = "role_changed", "Role changed"
        KEY_UNUSED = "key_unused", "Key unused"
        SIGN_IN = "sign_in", "Sign-in"
        AUDIT = "audit", "Audit record"

    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notifications"
    )
    # An event may be purged while its news are still to be read, so this is no foreign key.
    event_id = models.BigIntegerField()
    kind = models.CharField(max_length=20, choices=Kind.choices)
    title = models.CharField(max_length=300)
    body = models.TextField(blank=True)
    # A path of this installation; the host in front of it is a setting.
    url = models.CharField(max_length=300)
    created = models.DateTimeField()
    read_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["person", "event_id"], name="one_notification_per_person_and_event"
            )
        ]
        indexes = [
            # The bell and the list of one person, newest first.
            models.Index(fields=["person", "-id"], name="notification_of_person"),
            # The number at the bell.
            models.Index(
                fields=["person"], name="notification_unread", condition=Q(read_at__isnull=True)
            ),
            # What the daily tick drops.
            models.Index(fields=["created"], name="notification_age"),
        ]

    def __str__(self) -> str:
        return self.title


class Delivery(models.Model):
    """One message that leaves the installation about an event: a mail, or a post to the channel.

    It is taken by compare-and-set before it is sent, so that it is sent at most once: whoever dies
    in the middle leaves the news at the bell, and nobody gets them twice.
    """

    class Channel(models.TextChoices):
        EMAIL = "email"
        SLACK = "slack"

    channel = models.CharField(max_length=5, choices=Channel.choices)
    event_id = models.BigIntegerField()
    # Nobody in particular reads the channel.
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="deliveries",
    )
    title = models.CharField(max_length=300)
    body = models.TextField(blank=True)
    url = models.CharField(max_length=300)
    created = models.DateTimeField()
    taken_at = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [
            models.UniqueConstraint(
                fields=["event_id", "person"],
                name="one_mail_per_person_and_event",
                condition=Q(channel="email"),
            ),
            models.UniqueConstraint(
                fields=["event_id"], name="one_post_per_event", condition=Q(channel="slack")
            ),
            models.CheckConstraint(
                condition=Q(channel__in=["email", "slack"]), name="delivery_channel_is_known"
            ),
        ]
        # What the daily tick drops.
        indexes = [models.Index(fields=["created"], name="delivery_age")]

    def __str__(self) -> str:
        return f"{self.channel}: {self.title}"


class NewsCursor(models.Model):
    """The one row that says up to which sealed event people were told.

    Seals are numbered by one sealer in the order in which the events became visible. Event ids are
    not: a transaction that took its id early may commit late, behind the reader's back.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    seq = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_news_cursor")]

    def __str__(self) -> str:
        return f"told up to seal {self.seq}"


class PurgeRun(models.Model):
    """One run of the purge, as a thing that an event can name; there is no such table."""

    day = models.DateField(primary_key=True)

    class Meta:
        managed = False
        default_permissions = ()

    def __str__(self) -> str:
        return f"purge of {self.day}"
