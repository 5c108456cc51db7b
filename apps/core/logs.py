"""Log lines as JSON, with the request id: no secrets, and nothing of anybody's data.

What a library says of an error often quotes the value that it could not use: a row, a name, an
address. So a traceback names the places and the kinds of errors, and keeps the texts of those only
that speak of this machine. ``MLP_LOG_ERROR_TEXTS`` keeps them all, where data is not real.
"""

import logging
import re
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any

import orjson
from django.db.utils import InterfaceError, OperationalError

from apps.core import context

# In the order in which they are looked for; what is written in their place tells what it was.
_HIDDEN = (
    (re.compile(r"(mlp_(?:live|test)_[0-9A-Za-z]{12})_[0-9A-Za-z]{38}"), r"\1_..."),
    (re.compile(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]+"), "(token)"),
    (re.compile(r"\binv_[\w-]{8,}"), "inv_..."),
    (
        re.compile(r"(?i)\b(authorization|cookie)(\W*[:=]\W*)[^\"\\\n,{}]{4,}"),
        r"\1\2(hidden)",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 (hidden)"),
    (re.compile(r"(?i)\b(mlp_refresh|sessionid|csrftoken)=[^;\s\"\\]+"), r"\1=(hidden)"),
    (re.compile(r"(\w://)[^/\s:@\"]*:[^/\s@\"]+@"), r"\1(hidden)@"),
    (re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+"), "(email)"),
)
# Errors that speak of this machine or of our own code, and not of what somebody sent.
_OF_THE_MACHINE = (
    OSError,
    ImportError,
    AttributeError,
    NameError,
    TypeError,
    MemoryError,
    RecursionError,
    OperationalError,
    InterfaceError,
)
Excinfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def without_secrets(text: str) -> str:
    """Hide keys, tokens, invitations, passwords in addresses and email addresses."""
    for pattern, instead in _HIDDEN:
        text = pattern.sub(instead, text)
    return text


def error_words(error: BaseException) -> str:
    """Name an error for a log line; its text stands there only if it speaks of this machine."""
    name = type(error).__qualname__
    return f"{name}: {error}" if isinstance(error, _OF_THE_MACHINE) else name


class ContextFilter(logging.Filter):
    """Adds the request id to each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = context.current().request_id
        return True


class RefusalFilter(logging.Filter):
    """Leaves out what Django says of a request that was refused: the access line has its status.

    A person who may not do something, or an address without a page, is not an error of ours.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        status = getattr(record, "status_code", None)
        return not isinstance(status, int) or status >= HTTPStatus.INTERNAL_SERVER_ERROR


class JsonFormatter(logging.Formatter):
    """One JSON object a line; ``extra={"facts": {...}}`` become fields of it."""

    def __init__(self, *, error_texts: bool = False) -> None:
        """Say whether tracebacks keep the texts of all errors."""
        super().__init__()
        self._error_texts = error_texts

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
        return without_secrets(orjson.dumps(line, default=str).decode())

    def formatException(self, ei: Excinfo) -> str:  # noqa: N802 - the library's name
        if self._error_texts or ei[1] is None:
            return super().formatException(ei)
        return "".join(_told(ei[1], set())).rstrip("\n")


def _told(error: BaseException, seen: set[int]) -> Iterator[str]:
    """Tell an error and what it came from, in the order in which they happened."""
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _told(before, seen)
        yield "\nThis led to:\n\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{error_words(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _told(one, seen)
