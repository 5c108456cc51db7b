"""Beat's short tasks, and the messages that leave the installation."""

from celery import shared_task

from apps.core import work
from apps.core.events import Actor
from apps.monitoring.services import deliveries, news, retention

# Seconds between the tries of a message: an hour's outage is bridged, a night's is not.
WAITS = (10, 60, 300, 1200, 3600, 14400)


@shared_task(name="monitoring.tick_notify", ignore_result=True, expires=10)
def tick_notify() -> None:
    news.tell_pending()


@shared_task(name="monitoring.tick_purge", ignore_result=True, expires=3600)
def tick_purge() -> None:
    # A purge may take minutes, and the queue of ticks has one process.
    work.enqueue(retention.PURGE)


@work.background(retention.PURGE)
def purge() -> None:
    retention.purge(dry_run=False, actor=Actor.system())


@work.background(news.DELIVER, waits=WAITS)
def deliver(*, delivery_id: int) -> None:
    deliveries.deliver(delivery_id)
