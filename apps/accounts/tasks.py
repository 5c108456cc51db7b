"""Beat's short tasks of accounts."""

from celery import shared_task

from apps.accounts.services import guards, sessions, unused_keys


@shared_task(name="accounts.tick_drop_expired_tokens", ignore_result=True, expires=600)
def tick_drop_expired_tokens() -> None:
    sessions.drop_expired()
    guards.drop_old()


@shared_task(name="accounts.tick_warn_of_unused_keys", ignore_result=True, expires=3600)
def tick_warn_of_unused_keys() -> None:
    unused_keys.revoke_unused()
    unused_keys.warn_of_unused()
