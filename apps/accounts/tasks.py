"""Beat's short tasks of accounts."""

from celery import shared_task

from apps.accounts.services import sessions


@shared_task(name="accounts.tick_drop_expired_tokens", ignore_result=True, expires=600)
def tick_drop_expired_tokens() -> None:
    sessions.drop_expired()
