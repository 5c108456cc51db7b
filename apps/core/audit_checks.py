"""What `manage.py check --deploy` says of the audit record."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Warning, register  # noqa: A004 - its name
from django.db import DatabaseError, connection

from apps.core import roles


@register("audit", deploy=True)
def audit_is_out_of_reach(**_: Any) -> list[CheckMessage]:
    """Warn where one and the same person can write the record and rewrite it."""
    found: list[CheckMessage] = []
    place = urlsplit(settings.AUDIT_ANCHOR).scheme
    if not place:
        found.append(
            Warning(
                "The audit chain is anchored nowhere outside the database.",
                hint="Set MLP_AUDIT_ANCHOR=s3://bucket/prefix, a bucket with object lock.",
                id="core.W001",
            )
        )
    elif place == "file":
        found.append(
            Warning(
                "The anchors of the audit chain lie in a folder, which its owner can rewrite.",
                hint="Set MLP_AUDIT_ANCHOR=s3://bucket/prefix, a bucket with object lock.",
                id="core.W002",
            )
        )
    if connection.vendor == "postgresql" and _owns():
        found.append(
            Warning(
                "The application's role owns the audit tables or their schema, so it could rewrite "
                "or drop them.",
                hint="Give it a role of its own: `manage.py database_roles --app-role NAME`.",
                id="core.W003",
            )
        )
    return found


def _owns() -> bool:
    try:
        return roles.owns_the_record() or roles.could_drop_the_record()
    except DatabaseError:  # a check of settings must not need the database
        return False
