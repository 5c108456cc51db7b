"""A person reads their notifications."""

from django.utils import timezone

from apps.monitoring import selectors
from apps.monitoring.models import Notification


def mark_read(person_id: int, *, notification_id: int | None = None) -> int:
    """Mark one of a person's own notifications as read, or all; return how many were unread."""
    rows = selectors.unread_of(person_id)
    if notification_id is not None:
        rows = rows.filter(pk=notification_id)
    return rows.update(read_at=timezone.now())


def opened(person_id: int, notification_id: int) -> Notification | None:
    """Mark one as read because its page is opened, and return it; None if it is not theirs."""
    mark_read(person_id, notification_id=notification_id)
    return selectors.notifications_of(person_id).filter(pk=notification_id).first()
