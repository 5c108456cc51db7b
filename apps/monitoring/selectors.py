"""What the bell and the list of notifications show: one's own, newest first."""

from dataclasses import dataclass

from django.db.models import QuerySet

from apps.monitoring.models import Notification

AT_THE_BELL = 10
MOST_COUNTED = 100


@dataclass(frozen=True, slots=True)
class Bell:
    """What a person has not read, and the newest of all; ``mark`` changes when either does."""

    unread: int
    newest: tuple[Notification, ...]

    @property
    def mark(self) -> str:
        first = self.newest[0].pk if self.newest else 0
        return f"{first}-{self.unread}"

    @property
    def words(self) -> str:
        """The number as a badge shows it: *99+*."""
        return str(self.unread) if self.unread < MOST_COUNTED else f"{MOST_COUNTED - 1}+"


def notifications_of(person_id: int) -> QuerySet[Notification]:
    """Return a person's notifications, newest first."""
    return Notification.objects.filter(person_id=person_id).order_by("-id")


def unread_of(person_id: int) -> QuerySet[Notification]:
    """Return what a person has not read, newest first."""
    return notifications_of(person_id).filter(read_at__isnull=True)


def bell_of(person_id: int) -> Bell:
    """Return what the bell shows."""
    unread = unread_of(person_id).order_by()[:MOST_COUNTED].count()
    return Bell(unread, tuple(notifications_of(person_id)[:AT_THE_BELL]))
