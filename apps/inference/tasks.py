"""Beat's short tasks of the record, and the long one that they ask for."""

from celery import shared_task
from django.conf import settings

from apps.core import work
from apps.core.events import Actor
from apps.inference import services
from apps.inference.partitions import PartitionBusy

PURGE = "inference.purge_predictions"


@shared_task(
    name="inference.tick_make_partitions",
    ignore_result=True,
    expires=3000,
    autoretry_for=(PartitionBusy,),
    max_retries=3,
    retry_backoff=5,
)
def tick_make_partitions() -> None:
    services.make_partitions()


@shared_task(name="inference.tick_purge_predictions", ignore_result=True, expires=3600)
def tick_purge_predictions() -> None:
    # A purge may take minutes, and the queue of ticks has one process.
    work.enqueue(PURGE, keep_days=settings.PREDICTION_RETENTION_DAYS)


@work.background(PURGE)
def purge_predictions(*, keep_days: int) -> None:
    services.purge_predictions(keep_days=keep_days, dry_run=False, actor=Actor.system())
