"""How long files of uploads that nothing needs are kept."""

from django.conf import settings

from apps.core.events import Actor
from apps.core.retention import Kept, Removed
from apps.registry.services import uploads


def _uploads(days: int, dry_run: bool, actor: Actor) -> Removed:
    swept = uploads.remove_abandoned(days, dry_run=dry_run)
    return Removed(swept.files, swept.bytes)


KEPT = (Kept("uploads", lambda: settings.UPLOAD_RETENTION_DAYS, _uploads),)
