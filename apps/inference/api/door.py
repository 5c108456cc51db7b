"""The one door function of a prediction: a request's bytes in, a reply's bytes out.

Skins differ by the server they stand in and by nothing else: they begin the request's context, hand
over what came, and send what comes back. Everything is answered from memory: no query, no storage,
no network. Cheap refusals come first, and the body is read only for a caller who may ask.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import ClassVar
from urllib.parse import parse_qsl

import orjson
from django.conf import settings

from apps.accounts import policies
from apps.accounts.callers import Caller, caller_of
from apps.accounts.limits import Visit, credential_of, most_rows
from apps.accounts.policies import ENVIRONMENTS, PRODUCTION, Action, Thing
from apps.accounts.wiring import limiter
from apps.core import context
from apps.core.api.exceptions import platform_error_of, problem_body, problem_headers
from apps.core.errors import (
    Invalid,
    NotFound,
    PlatformError,
    RateLimited,
    TooLarge,
    Unavailable,
)
from apps.inference import wiring
from apps.inference.api.dialects import native
from apps.inference.engine.errors import UnknownModel, WrongMediaType
from apps.inference.engine.image_files import MAX_IMAGE_BYTES
from apps.inference.engine.pipeline import Engine
from apps.inference.engine.routing import Routes
from apps.inference.engine.types import Asker, PredictAnswer, PredictCall, Source
from apps.registry.image_spec import IMAGE_TYPES
from apps.registry.signature import Signature
from apps.registry.snapshot import ArmRole, EndpointBody

PATH = re.compile(r"/api/(?:v1/)?predict/([^/]+)/?")
METHOD = "POST"
WORDS = frozenset({"environment", "version", "alias"})
# Beyond every model's own deadline; the engine takes the smaller one.
LONGEST_SECONDS = 300.0
MAX_VERSION = 2**31 - 1
LONGEST_AGENT = 200
ALWAYS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class WrongMethod(PlatformError):
    """This address answers another method."""

    code = "method_not_allowed"
    status: ClassVar[HTTPStatus] = HTTPStatus.METHOD_NOT_ALLOWED


@dataclass(frozen=True, slots=True)
class DoorRequest:
    """One request as any server knows it.

    Attributes:
        path: Decoded, without the query.
        query: Raw, without the question mark.
        headers: Names in lower case.
        received: ``time.monotonic()`` second at which the request began to be handled.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    received: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class DoorReply:
    """What to send back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def answer(request: DoorRequest) -> DoorReply:
    """Answer one request; every error is a reply."""
    visit = Visit()
    try:
        serving = wiring.serving().engine
        caller = admitted(request)
        visit = limiter().enter(caller, context.current().address)
        found = serving.predict(call_of(request, serving.routes, caller, visit))
        reply = reply_of(found, serving)
    except Exception as error:  # noqa: BLE001 - the door's own place where errors become replies
        reply = refusal_of(error)
    return _counted(visit, reply)


def admitted(request: DoorRequest) -> Caller:
    """Find out who asks, and that it is asked in a way that is answered here at all.

    Raises:
        PlatformError: Why not.
    """
    if request.method != METHOD:
        raise WrongMethod(f"Predictions are asked for with {METHOD}.")
    require_small(request.headers, len(request.body))
    return authenticate(request.headers)


def call_of(request: DoorRequest, routes: Routes, caller: Caller, visit: Visit) -> PredictCall:
    """Read a request: for what is asked, and whether that may be.

    Raises:
        PlatformError: Why not.
    """
    model = _model(request.path)
    words = _words(request.query)
    environment = _environment(words, caller)
    endpoint = _endpoint(routes, environment, model)
    if endpoint is None:
        raise _unknown(model)
    thing = Thing(endpoint.team_id, model, environment)
    try:
        policies.require(caller, Action.PREDICT, thing)
    except NotFound:
        raise _unknown(model) from None
    version = _version(words)
    deadline = request.received + _seconds(request.headers)
    question = _question(request, _signatures(routes, endpoint, version, words.get("alias")))
    return PredictCall(
        model=model,
        environment=environment,
        inputs=question.inputs,
        deadline=deadline,
        version=version,
        alias=words.get("alias"),
        unit=question.unit,
        client_id=question.client_id,
        parameters=question.parameters,
        source=(
            _try(caller, thing)
            if request.headers.get("x-prediction-source") == Source.TRY
            else _source(caller, thing, endpoint, version, words.get("alias"))
        ),
        asker=Asker(
            caller.key.id if caller.key else None,
            caller.user_id,
            address=context.current().address if settings.RECORD_ADDRESSES else None,
            agent=request.headers.get("user-agent", "")[:LONGEST_AGENT] or None,
        ),
        request_id=context.current().request_id,
        max_rows=most_rows(caller.plan, settings.MAX_ROWS),
        admit=visit.spend,
    )


def reply_of(found: PredictAnswer, serving: Engine) -> DoorReply:
    """Write the reply to an answered call."""
    version = serving.routes.versions.get((found.model, found.version))
    body = native.body_of(found, version.signature if version else None)
    context.note(
        model_id=found.model,
        model_version=found.version,
        prediction_id=found.prediction_id,
        cached=found.cached,
    )
    return DoorReply(HTTPStatus.OK, _headers({"Content-Type": native.MEDIA_TYPE}), body)


def refusal_of(error: Exception) -> DoorReply:
    """Write the reply that says an error."""
    refusal = platform_error_of(error)
    headers = problem_headers(refusal)
    if isinstance(refusal, WrongMethod):
        headers["Allow"] = METHOD
    context.note(code=refusal.code)
    body = orjson.dumps(problem_body(refusal))
    return DoorReply(int(refusal.status), _headers(headers), body)


def _counted(visit: Visit, reply: DoorReply) -> DoorReply:
    """Count a call that ended before its rows were known, and say how its caller stands."""
    try:
        visit.close()
    except RateLimited as error:
        reply = refusal_of(error)
    headers = visit.headers()
    return replace(reply, headers={**headers, **reply.headers}) if headers else reply


# --- checks that other doors share ---------------------------------------------------------------


def authenticate(headers: Mapping[str, str]) -> Caller:
    """Find out from memory who is asking.

    Raises:
        Unavailable: This process knows nobody yet.
        RateLimited: This address presented too many bad ones.
        PlatformError: The credential is missing or bad.
    """
    follower = wiring.serving().follower
    if not follower.has_snapshot:
        raise Unavailable("This process has just started and knows no models yet. Try again.")
    address = context.current().address
    credential = credential_of(headers)
    limiter().guard(address, credential)
    try:
        caller = caller_of(
            headers,
            directory=follower.directory,
            verifier=wiring.verifier(),
            now=time.time(),
            address=address,
        )
    except PlatformError:
        limiter().note_refused(address, credential)
        raise
    limiter().note_good(credential)
    context.note(user_id=caller.user_id, key=caller.key.id if caller.key else None)
    return caller


def require_small(headers: Mapping[str, str], size: int = 0) -> None:
    """Refuse a body that is, or says it is, too large; a skin asks before it reads one."""
    # Which model is asked, and so whether it takes images, is only known later.
    limit = max(settings.MAX_PREDICT_BYTES, settings.MAX_IMAGE_PREDICT_BYTES)
    _require_at_most(_size(headers, size), limit)


def _size(headers: Mapping[str, str], size: int) -> int:
    """Count the body, or take the sender's word if it says more."""
    said = headers.get("content-length", "")[:20]
    return max(size, int(said)) if said.isascii() and said.isdigit() else size


def _require_at_most(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(
            f"The body is larger than {limit} bytes. Send fewer rows at once.", limit=limit
        )


def media_type(headers: Mapping[str, str]) -> str:
    """Return the kind of body: JSON in UTF-8, or an image.

    Raises:
        WrongMediaType: It is another kind, or it is compressed.
    """
    kind, _, parameters = headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if kind not in IMAGE_TYPES and (
        kind != native.MEDIA_TYPE or charset not in {"", "utf-8", "utf8"}
    ):
        raise WrongMediaType(
            f"Send JSON in UTF-8, with `Content-Type: {native.MEDIA_TYPE}`; to a model whose one "
            f"input is an image also the file itself, as {' or '.join(IMAGE_TYPES)}."
        )
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise WrongMediaType("Send the body as it is, without `Content-Encoding`.")
    return kind


# --- the body ---------------------------------------------------------------------------------


def _question(request: DoorRequest, signatures: Sequence[Signature]) -> native.Question:
    """Read the body, as large and of such a kind as what may answer it takes."""
    kind, size = media_type(request.headers), _size(request.headers, len(request.body))
    if kind == native.MEDIA_TYPE:
        images = any(one.takes_images for one in signatures)
        limit = settings.MAX_PREDICT_BYTES
        _require_at_most(size, max(limit, settings.MAX_IMAGE_PREDICT_BYTES) if images else limit)
        return native.question_of(request.body)
    if signatures and not any(one.is_one_image for one in signatures):
        raise WrongMediaType(
            "This model does not take one image as its whole question. Send JSON with its inputs, "
            f"with `Content-Type: {native.MEDIA_TYPE}`."
        )
    _require_at_most(size, MAX_IMAGE_BYTES)
    return native.image_question(request.body, kind)


def _signatures(
    routes: Routes, endpoint: EndpointBody, version: int | None, alias: str | None
) -> list[Signature]:
    """Return the signatures of whatever may answer; the engine chooses among them later."""
    asked = version if alias is None else endpoint.aliases.get(alias)
    live = endpoint.release.arms if endpoint.release else ()
    numbers = [arm.version for arm in live] if asked is None else [asked]
    found = (routes.versions.get((endpoint.model, number)) for number in numbers)
    return [one.signature for one in found if one is not None]


# --- the parts of a request -----------------------------------------------------------------------


def _model(path: str) -> str:
    found = PATH.fullmatch(path)
    if found is None:
        raise NotFound("There is nothing at this address. Predict with /api/v1/predict/<model>.")
    return found[1]


def _words(query: str) -> dict[str, str]:
    """Read the query strictly: a mistyped `environment` must not end in production."""
    if not query:
        return {}
    pairs = parse_qsl(query, keep_blank_values=True)
    words = dict(pairs)
    if len(words) != len(pairs):
        raise Invalid("A query parameter stands twice in the address. Send each one once.")
    if unknown := words.keys() - WORDS:
        known = ", ".join(sorted(WORDS))
        raise Invalid(
            f"There is no query parameter `{min(unknown)[:80]}`; the parameters are {known}."
        )
    if "version" in words and "alias" in words:
        raise Invalid("Ask for a version or for an alias, not for both.")
    return words


def _environment(words: Mapping[str, str], caller: Caller) -> str:
    asked = words.get("environment")
    if asked is None:
        bound = caller.key.environments if caller.key else ()
        return bound[0] if len(bound) == 1 else PRODUCTION
    if asked not in ENVIRONMENTS:
        raise Invalid(
            f"There is no environment `{asked[:80]}`; there are {', '.join(ENVIRONMENTS)}."
        )
    return asked


def _version(words: Mapping[str, str]) -> int | None:
    asked = words.get("version")
    if asked is None:
        return None
    if not (asked.isascii() and asked.isdigit() and len(asked) <= 10):
        raise Invalid("`version` is a number, as 3.")
    number = int(asked)
    if not 1 <= number <= MAX_VERSION:
        raise Invalid("`version` is a number from 1 on.")
    return number


def _endpoint(routes: Routes, environment: str, model: str) -> EndpointBody | None:
    """Find what is asked for; another environment's endpoint tells whose the model is."""
    for one in (environment, *ENVIRONMENTS):
        endpoint = routes.endpoint(one, model)
        if endpoint is not None:
            return endpoint
    return None


def _source(
    caller: Caller, thing: Thing, endpoint: EndpointBody, version: int | None, alias: str | None
) -> Source:
    """A version that is not released may be tried by those who may read and change the model."""
    if version is None and alias is None:
        return Source.API
    number = version if alias is None else endpoint.aliases.get(alias)
    live = endpoint.release if endpoint.environment == thing.environment else None
    answering = {arm.version for arm in live.arms if arm.role is not ArmRole.SHADOW} if live else ()
    if number is None or number in answering:
        return Source.API
    return Source.TRY if policies.may(caller, Action.PREDICT_TRY, thing) else Source.API


def _try(caller: Caller, thing: Thing) -> Source:
    """Take a call as a try because it says so: it then never counts as traffic."""
    policies.require(caller, Action.PREDICT_TRY, thing)
    return Source.TRY


def _seconds(headers: Mapping[str, str]) -> float:
    asked = headers.get("x-request-timeout-ms")
    if asked is None:
        return LONGEST_SECONDS
    if not (asked.isascii() and asked.isdigit() and 0 < len(asked) <= 9) or int(asked) == 0:
        raise Invalid("`X-Request-Timeout-Ms` is a whole number of milliseconds, as 500.")
    return min(int(asked) / 1000, LONGEST_SECONDS)


def _unknown(model: str) -> UnknownModel:
    return UnknownModel(
        f"There is no model `{model[:100]}` here, or it belongs to a team that you are not in. "
        "Check the name in the address."
    )


def _headers(more: Mapping[str, str]) -> dict[str, str]:
    request_id = context.current().request_id
    named = {"X-Request-ID": request_id} if request_id else {}
    return {**ALWAYS, **named, **more}
