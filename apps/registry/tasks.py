"""Background work of the registry: validations, and the sweep after killed processes."""

from celery import shared_task

from apps.core import work
from apps.registry.services import uploads, validation


@work.background(uploads.VALIDATE, attempts=3, given_up=validation.give_up)
def validate_version(*, version_id: int) -> None:
    validation.validate_version(version_id)


@shared_task(name="registry.tick_sweep_uploads", ignore_result=True, expires=600)
def tick_sweep_uploads() -> None:
    uploads.sweep()
