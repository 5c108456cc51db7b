"""Beat's short tasks of the ground floor."""

from celery import shared_task

from apps.core import events, work


@shared_task(name="core.tick_seal_events", ignore_result=True, expires=5)
def tick_seal_events() -> None:
    events.seal_pending()


@shared_task(name="core.tick_reap_work", ignore_result=True, expires=30)
def tick_reap_work() -> None:
    work.reap()
