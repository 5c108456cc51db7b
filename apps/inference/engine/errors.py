"""What can go wrong between a parsed call and its answer; children of the shared error tree."""

from http import HTTPStatus

from apps.core.errors import Conflict, Invalid, NotFound, PlatformError, Unavailable


class EngineError(PlatformError):
    """Parent of the engine's own errors that are our fault or the model's, not the caller's."""


class UnknownModel(NotFound):
    """No model of this name is visible to the caller."""

    code = "unknown_model"


class NotReleased(Conflict):
    """The model exists, but nothing (or not the version asked for) is released there."""

    code = "not_released"


class SignatureMismatch(Invalid):
    """The rows do not fit the signature; ``problems`` point at each wrong place."""

    code = "signature_mismatch"


class TooManyRows(Invalid):
    """More rows than one call may carry."""

    code = "too_many_rows"


class WrongMediaType(Invalid):
    """The body is of a kind that is not read here, or not by this model."""

    code = "unsupported_media_type"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class Overloaded(Unavailable):
    """The bounded queue of the model is full."""

    code = "overloaded"
    retry_after_seconds = 1


class SpoolFull(Unavailable):
    """The record of an answer cannot be kept, so there is no answer."""

    code = "spool_full"
    retry_after_seconds = 5


class ModelUnavailable(Unavailable):
    """The version's file is not here, or cannot be loaded at present."""

    code = "model_unavailable"


class ModelFailed(EngineError):
    """The model itself raised on this input."""

    code = "model_failed"
    status = HTTPStatus.BAD_GATEWAY


class DeadlinePassed(EngineError):
    """The answer was not ready in time."""

    code = "deadline"
    status = HTTPStatus.GATEWAY_TIMEOUT
    retryable = True
