"""The installation's keys of ``hash`` redaction: the one in use, and those of former secrets.

A value hashed under a former secret is still found by it; nothing is ever hashed under one again.
"""

import hashlib

from django.conf import settings

from apps.inference.engine.redact import RecordRules, hashed


def record_rules() -> RecordRules:
    """Return the rules of the record; hashed fields depend on the installation's own key."""
    return RecordRules(_key(settings.SECRET_KEY), settings.RECORD_BYTES)


def digests_of(unit: str) -> list[str]:
    """Return a unit as ``hash`` redaction wrote it: by the key in use, then by former ones."""
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return list(dict.fromkeys(hashed(unit, _key(secret)) for secret in secrets))


def _key(secret: str) -> bytes:
    return hashlib.sha256(b"mlplatform.redaction:" + secret.encode()).digest()
