"""Log lines as JSON, with the request id, never with a whole API key."""

import logging
import re
from datetime import UTC, datetime
from typing import Any

import orjson

from apps.core import context

SECRET = re.compile(r"(mlp_(?:live|test)_[0-9A-Za-z]{12})_[0-9A-Za-z]{38}")


class ContextFilter(logging.Filter):
    """Adds the request id to each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = context.current().request_id
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line; ``extra={"facts": {...}}`` become fields of it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", ""):
            line["request_id"] = request_id
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return SECRET.sub(r"\1_...", orjson.dumps(line, default=str).decode())
