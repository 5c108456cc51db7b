"""What a log line and an event say of the request under way; plain Python."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class RequestContext:
    """The request under way; doors add what they learn (``facts`` go to the access log)."""

    request_id: str = ""
    address: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


_current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def begin(request_id: str, address: str | None) -> RequestContext:
    """Start the context of a request and return it."""
    context = RequestContext(request_id, address)
    _current.set(context)
    return context


def current() -> RequestContext:
    """Return the context under way, or an empty one outside a request."""
    return _current.get() or RequestContext()


def note(**facts: Any) -> None:
    """Add facts to the access log line of the request under way."""
    context = _current.get()
    if context is not None:
        context.facts.update(facts)
