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
        _note_browsers()
        _note_factors()


def _note_browsers() -> None:
    """Django says when a browser is signed in or out, whichever form or provider did it."""
    from django.contrib.auth.signals import user_logged_in, user_logged_out  # noqa: PLC0415 - as above

    from apps.accounts.services import browsers  # noqa: PLC0415 - needs the apps to be loaded

    user_logged_in.connect(browsers.signed_in, dispatch_uid="accounts.signed_in")
    user_logged_out.connect(browsers.signed_out, dispatch_uid="accounts.signed_out")


def _note_factors() -> None:
    """Allauth's pages set second factors up and take them away."""
    from apps.accounts.sso import receivers  # noqa: PLC0415 - needs the apps to be loaded

    receivers.connect()


def _ensure_first_plans(**_: Any) -> None:
    """People and keys point at plans, so also a database that was emptied begins with some."""
    from apps.accounts.services import plans  # noqa: PLC0415 - needs the apps to be loaded

    plans.make_first_plans()
