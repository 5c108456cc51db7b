"""What a shared cache keeps: JSON, so that whoever can write to it cannot run a program here.

Django's own serializer for Redis is pickle, whose reader does what the bytes say.
"""

import logging
from typing import Any

import orjson

LOG = logging.getLogger(__name__)
# What JSON has no word for is a mistake of ours at the time of writing, not a surprise of reading.
_STRICT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


class JsonSerializer:
    """Turns values of a Redis cache into bytes and back."""

    def dumps(self, value: Any) -> Any:
        """Return what is kept; whole numbers stay numbers, because Redis counts with them.

        Raises:
            TypeError: The value has no form in JSON.
        """
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        return orjson.dumps(value, option=_STRICT)

    def loads(self, kept: bytes) -> Any:
        """Return a kept value, or None, as if it were not there, when it is no JSON."""
        try:
            return orjson.loads(kept)
        except orjson.JSONDecodeError:
            LOG.warning("a value of the cache is not JSON and is left unread")
            return None
