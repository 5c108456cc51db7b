"""Send one message that leaves the installation, at most once."""

from django.utils import timezone

from apps.core.errors import PlatformError
from apps.core.models import Event
from apps.monitoring import rules
from apps.monitoring.clients import mail, slack
from apps.monitoring.models import Delivery


def deliver(delivery_id: int) -> None:
    """Send a message that nobody has taken yet.

    It is taken before it is sent: work may run twice, and a second mail is worse than the rare one
    that is lost with its worker, since the bell has the news anyhow. A failure gives it back.

    Raises:
        PlatformError: It could not be sent; ``retryable`` says whether later may help.
    """
    free = Delivery.objects.filter(pk=delivery_id, taken_at__isnull=True)
    if not free.update(taken_at=timezone.now()):
        return
    delivery = Delivery.objects.select_related("person").get(pk=delivery_id)
    mine = Delivery.objects.filter(pk=delivery_id)
    try:
        _send(delivery)
    except PlatformError as error:
        kept = None if error.retryable else delivery.taken_at
        mine.update(taken_at=kept, error=error.message)
        raise
    mine.update(sent_at=timezone.now(), error="")


def _still_sees(person_id: int, event_id: int) -> bool:
    """Whether the receiver is still in the team: a message may wait for hours to be sent."""
    event = Event.objects.filter(pk=event_id).first()
    return event is None or person_id in rules.who_may_know(event, [person_id])


def _send(delivery: Delivery) -> None:
    if delivery.channel == Delivery.Channel.SLACK:
        slack.post(delivery.title, delivery.body, delivery.url)
        return
    person = delivery.person
    if person is None or not person.is_active or not person.email:
        return
    if not _still_sees(person.pk, delivery.event_id):
        return
    mail.send(
        person.email,
        name=f"{delivery.event_id}-{person.pk}",
        title=delivery.title,
        body=delivery.body,
        url=delivery.url,
    )
