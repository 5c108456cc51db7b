"""Tell people what happened: read sealed events once, in order, and write who must know.

The cursor, the notifications and the work that delivers them are written in one transaction, so
that whoever dies anywhere loses nothing and tells nobody twice.
"""

import logging
from collections.abc import Iterable, Sequence

from django.conf import settings
from django.db import transaction

from apps.accounts.models import User
from apps.core import work
from apps.core.models import Event, EventSeal
from apps.core.retention import in_steps, older_than
from apps.monitoring import rules
from apps.monitoring.models import Delivery, NewsCursor, Notification
from apps.monitoring.rules import News

LOG = logging.getLogger(__name__)
DELIVER = "monitoring.deliver"
STEP_EVENTS = 200


def tell_pending() -> int:
    """Tell what was sealed since the last time; return how many notifications were written."""
    # Most of the time there is nothing, and then nobody's write is held up.
    seq = NewsCursor.objects.filter(pk=1).values_list("seq", flat=True).first()
    if not EventSeal.objects.filter(seq__gt=seq or 0).exists():
        return 0
    told = 0
    while True:
        count, is_all = _tell_some()
        told += count
        if is_all:
            return told


@transaction.atomic
def _tell_some() -> tuple[int, bool]:
    NewsCursor.objects.get_or_create(pk=1)
    cursor = NewsCursor.objects.select_for_update().get(pk=1)
    seals = list(
        EventSeal.objects.filter(seq__gt=cursor.seq)
        .select_related("event")
        .order_by("seq")[:STEP_EVENTS]
    )
    told = sum(_tell(seal.event) for seal in seals)
    if seals:
        NewsCursor.objects.filter(pk=1).update(seq=seals[-1].seq)
    return told, len(seals) < STEP_EVENTS


def _tell(event: Event) -> int:
    try:
        news = _untold(event, rules.news_of(event))
    except (AttributeError, LookupError, TypeError, ValueError):
        # An event that an older release wrote differently must not silence all that follow.
        LOG.exception("nobody could be told of event %s %s", event.pk, event.verb)
        return 0
    if not news:
        return 0
    Notification.objects.bulk_create([_notification(event, one) for one in news])
    _deliver(event, news)
    return len(news)


def _untold(event: Event, news: list[News]) -> list[News]:
    """Leave out who was told: the cursor may be set back by hand, or its row may be lost."""
    if not news:
        return []
    told = Notification.objects.filter(event_id=event.pk).values_list("person_id", flat=True)
    return [one for one in news if one.person_id not in set(told)]


def _notification(event: Event, news: News) -> Notification:
    return Notification(
        person_id=news.person_id,
        event_id=event.pk,
        kind=news.kind,
        title=news.title,
        body=news.body,
        url=news.url,
        created=event.at,
    )


def _deliver(event: Event, news: Sequence[News]) -> None:
    """Ask for the messages that leave the installation, where the operator wants them."""
    people = {one.pk: one for one in User.objects.filter(pk__in=[one.person_id for one in news])}
    wanted: list[Delivery] = []
    if settings.EMAIL_URL:
        wanted += _mails(event, [one for one in news if people[one.person_id].email])
    if settings.SLACK_WEBHOOK_URL and not _is_posted(event):
        names = ", ".join(people[one.person_id].username for one in news)
        wanted.append(_post(event, news[0], names))
    for one in wanted:
        one.save(force_insert=True)
        work.enqueue(DELIVER, subject=one, delivery_id=one.pk)


def _is_posted(event: Event) -> bool:
    return Delivery.objects.filter(event_id=event.pk, channel=Delivery.Channel.SLACK).exists()


def _mails(event: Event, news: Iterable[News]) -> list[Delivery]:
    return [
        Delivery(
            channel=Delivery.Channel.EMAIL,
            event_id=event.pk,
            person_id=one.person_id,
            title=one.title,
            body=one.body,
            url=one.url,
            created=event.at,
        )
        for one in news
    ]


def _post(event: Event, news: News, names: str) -> Delivery:
    """One post for everybody: a channel is read by all."""
    return Delivery(
        channel=Delivery.Channel.SLACK,
        event_id=event.pk,
        title=news.told or news.title,
        body=f"{news.body}\nFor: {names}",
        url=news.url,
        created=event.at,
    )


def drop_old(*, days: int, dry_run: bool = False) -> int:
    """Remove notifications and deliveries of before that many days; return how many."""
    before = older_than(days)
    news = Notification.objects.filter(created__lt=before).order_by("pk")
    sent = Delivery.objects.filter(created__lt=before).order_by("pk")
    return sum(in_steps(rows, dry_run=dry_run).rows for rows in (news, sent))
