"""Who is asking, and what they may do."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AccountsConfig(AppConfig):
    name = "apps.accounts"
    label = "accounts"
    verbose_name = "People and keys"

    def ready(self) -> None:
        post_migrate.connect(_ensure_first_plans, sender=self)


def _ensure_first_plans(**_: Any) -> None:
    """People and keys point at plans, so also a database that was emptied begins with some."""
    from apps.accounts.services import plans  # noqa: PLC0415 - needs the apps to be loaded

    plans.make_first_plans()
