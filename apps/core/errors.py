"""The error tree every floor shares; plain Python.

A ``PlatformError`` is something a caller can act on. Whatever is raised that is not one of these is
our own bug and becomes a bare ``internal`` problem with the request id; its text never leaves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong place in a request: an RFC 6901 pointer into the body, and what to do about it."""

    pointer: str
    detail: str


class PlatformError(Exception):
    """Something a caller can act on. ``code`` is stable; ``message`` is for people."""

    code: ClassVar[str] = "internal"
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    retryable: ClassVar[bool] = False
    # Of the class, or of one error that knows better.
    retry_after_seconds: int | None = None
    # What a reply says of this one error besides.
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, message: str, **facts: str | int | float) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        self.problems: tuple[FieldProblem, ...] = ()

    def at(self, problems: Sequence[FieldProblem]) -> "PlatformError":
        """Attach the wrong places of the request and return the same error."""
        self.problems = tuple(problems)
        return self


class Invalid(PlatformError):
    """The request cannot be understood or breaks a rule of its own fields."""

    code = "invalid"
    status = HTTPStatus.BAD_REQUEST


class NotAuthenticated(PlatformError):
    """No credential was presented."""

    code = "not_authenticated"
    status = HTTPStatus.UNAUTHORIZED


class InvalidToken(PlatformError):
    """A bearer token was presented that is bad, expired or revoked."""

    code = "invalid_token"
    status = HTTPStatus.UNAUTHORIZED


class WrongPassword(PlatformError):
    """The name and the password do not belong together."""

    code = "wrong_password"
    status = HTTPStatus.UNAUTHORIZED


class InvalidKey(PlatformError):
    """An API key was presented that is bad, expired or revoked."""

    code = "invalid_key"
    status = HTTPStatus.FORBIDDEN


class NotAllowed(PlatformError):
    """The caller is known and may not do this."""

    code = "not_allowed"
    status = HTTPStatus.FORBIDDEN


class NotFound(PlatformError):
    """There is no such thing, or it belongs to another team, which looks the same."""

    code = "not_found"
    status = HTTPStatus.NOT_FOUND


class Conflict(PlatformError):
    """Somebody else was quicker, or the thing is in a state that forbids this."""

    code = "conflict"
    status = HTTPStatus.CONFLICT


class TooMany(PlatformError):
    """The caller asks more often than allowed, or is locked out, and may come back later."""

    code = "too_many_requests"
    status = HTTPStatus.TOO_MANY_REQUESTS
    retryable = True

    def __init__(self, message: str, *, seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = max(1, seconds)


class LockedOut(TooMany):
    """A name or an address failed to sign in too often."""

    code = "locked_out"


class RateLimited(TooMany):
    """A caller is over one of its limits."""

    code = "rate_limited"


class TooLarge(PlatformError):
    """A body or file is over its limit."""

    code = "too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class StorageFull(PlatformError):
    """There is no room for the file."""

    code = "storage_full"
    status = HTTPStatus.INSUFFICIENT_STORAGE
    retryable = True


class Unavailable(PlatformError):
    """A part that this call needs does not answer."""

    code = "unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retryable = True
    retry_after_seconds = 2
