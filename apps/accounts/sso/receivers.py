"""allauth's tables change on its pages; its signals and its rows tell us, and we write events."""

from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authenticator_removed
from django.db.models.signals import post_save

from apps.accounts.services import mfa


def connect() -> None:
    """Listen. A new row is heard of in its own transaction, hence Django's signal there."""
    post_save.connect(_saved, sender=Authenticator, dispatch_uid="accounts.factor_added")
    authenticator_removed.connect(_removed, dispatch_uid="accounts.factor_removed")


def _saved(sender: Any, instance: Authenticator, created: bool, **_: Any) -> None:
    if created:
        mfa.note_added(instance)


def _removed(sender: Any, authenticator: Authenticator, **_: Any) -> None:
    """Recovery codes go with the last factor; that is one event and not two."""
    if authenticator.type != Authenticator.Type.RECOVERY_CODES:
        mfa.note_removed(authenticator)
