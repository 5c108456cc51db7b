"""Beat's short tasks of the record, and the long one that they ask for."""

from celery import shared_task

from apps.core import work
from apps.inference.partitions import PartitionBusy
from apps.inference.services import erasure, purge


@shared_task(
    name="inference.tick_make_partitions",
    ignore_result=True,
    expires=3000,
    autoretry_for=(PartitionBusy,),
    max_retries=3,
    retry_backoff=5,
)
def tick_make_partitions() -> None:
    purge.make_partitions()


@work.background(erasure.ERASE, attempts=10)
def erase_unit(*, erasure_id: int) -> None:
    erasure.erase(erasure_id)
