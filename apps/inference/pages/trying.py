"""Asks one version one question for a person, wherever this process lets that be answered.

Three ways, chosen by the settings: by the serving role over HTTP, by the engine of this process
where it serves, else by a small engine of its own. The answer is the same JSON that the API gives,
and the question is recorded as a try.
"""

import time
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import orjson
from django.conf import settings

from apps.accounts.callers import Caller
from apps.accounts.limits import most_rows
from apps.accounts.models import User
from apps.accounts.selectors import plan_body
from apps.accounts.services import sessions
from apps.accounts.wiring import limiter
from apps.core import context
from apps.core.errors import FieldProblem, PlatformError, TooLarge
from apps.inference import wiring
from apps.inference.api.dialects import native
from apps.inference.clients import serving as client
from apps.inference.engine.errors import DeadlinePassed, ModelUnavailable, NotReleased
from apps.inference.engine.pipeline import Engine
from apps.inference.engine.types import Asker, PredictCall, Source
from apps.registry import selectors as registry
from apps.registry.models import ModelVersion
from apps.registry.snapshot import VersionBody
from apps.registry.states import Environment

TRY_SECONDS = 30.0
# A token for the one call to the serving role.
TOKEN_SECONDS = 60
AGAIN_SECONDS = 0.5
WAITS_FOR_A_LOAD = frozenset({DeadlinePassed.code, ModelUnavailable.code})


@dataclass(frozen=True, slots=True)
class Tried:
    """What a version said, as the API says it.

    Attributes:
        body: The whole reply, read.
        load_seconds: How long the model had to be loaded before; None when it was in memory.
    """

    body: dict[str, Any]
    load_seconds: float | None = None


class RefusedThere(PlatformError):
    """The serving role refused, in its own words."""

    code = "refused_there"
    status = HTTPStatus.BAD_GATEWAY


def environment_of(version: ModelVersion) -> str:
    """Return where a try is recorded: where the version serves, else development."""
    serves_in = registry.environments_serving(version)
    known = (one.value for one in reversed(Environment))
    return next((one for one in known if one in serves_in), Environment.DEVELOPMENT.value)


def try_version(
    version: ModelVersion, *, environment: str, body: bytes, caller: Caller, user: User
) -> Tried:
    """Ask a version; waits for its model as long as people wait for a page.

    Raises:
        PlatformError: Why there is no answer; ``problems`` point into the question.
    """
    _require_small(version, body)
    if settings.SERVING_URL:
        return _ask_serving_role(version, environment, body, user)
    # A session has no plan: whoever asks by the page is counted like her tokens are.
    caller = replace(caller, plan=plan_body(user.plan))
    visit = limiter().enter(caller, context.current().address)
    question = native.question_of(body)
    deadline = time.monotonic() + TRY_SECONDS
    call = PredictCall(
        model=version.model.name,
        environment=environment,
        inputs=question.inputs,
        deadline=deadline,
        version=version.number,
        unit=question.unit,
        client_id=question.client_id,
        parameters=question.parameters,
        source=Source.TRY,
        asker=Asker(user_id=caller.user_id),
        request_id=context.current().request_id,
        max_rows=most_rows(caller.plan, settings.MAX_ROWS),
        admit=visit.spend,
    )
    return _ask_here(call) if settings.SERVES else _ask_trial(call, version)


def _require_small(version: ModelVersion, body: bytes) -> None:
    images = any("image" in one for one in (version.signature or {}).get("inputs", ()))
    limit = settings.MAX_IMAGE_PREDICT_BYTES if images else settings.MAX_PREDICT_BYTES
    if len(body) > limit:
        raise TooLarge(f"The question is larger than {limit} bytes. Send fewer rows at once.")


def _ask_here(call: PredictCall) -> Tried:
    """Ask the engine with which this process serves; its agent ships the record."""
    serving = wiring.serving()
    known = serving.engine.routes.versions.get((call.model, call.version or 0))
    if known is None:
        raise NotReleased(
            "This version is on its way to the process that answers. Try again in a few seconds.",
        )
    return _asked(serving.engine, serving.pool, known, call)


def _ask_trial(call: PredictCall, version: ModelVersion) -> Tried:
    """Ask the small engine of a process that serves nobody; the record goes to the database."""
    trial = wiring.trial()
    endpoint = registry.endpoint_body(registry.find_endpoint(version.model, call.environment))
    body = registry.version_body(version)
    patient = replace(endpoint.settings, deadline_seconds=TRY_SECONDS)
    trial.know(replace(endpoint, settings=patient), body)
    try:
        return _asked(trial.engine, trial.pool, body, call)
    finally:
        trial.journal.write_down()


def _asked(engine: Engine, pool: Any, version: VersionBody, call: PredictCall) -> Tried:
    started, was_there = time.monotonic(), pool.is_loaded(version)
    if not was_there:  # before the question: a load may take longer than the model's own deadline
        pool.ensure(version, deadline=call.deadline)
    load_seconds = None if was_there else time.monotonic() - started
    answer = engine.predict(call)
    return Tried(orjson.loads(native.body_of(answer, version.signature)), load_seconds)


def _ask_serving_role(version: ModelVersion, environment: str, body: bytes, user: User) -> Tried:
    """Ask over HTTP as the person; a model that is still being loaded is asked again."""
    token = sessions.access_token(user, seconds=TOKEN_SECONDS)
    until = time.monotonic() + TRY_SECONDS
    while True:
        reply = client.try_version(
            version.model.name,
            version.number,
            environment=environment,
            body=body,
            token=token,
            seconds=max(1.0, until - time.monotonic()),
        )
        said = _read(reply.body)
        if reply.status == HTTPStatus.OK:
            return Tried(said)
        loading = said.get("code") in WAITS_FOR_A_LOAD
        if not loading or time.monotonic() + AGAIN_SECONDS >= until:
            raise _refusal(said)
        time.sleep(AGAIN_SECONDS)


def _read(body: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(body)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise client.ServingUnreachable(
            "What answers at MLP_SERVING_URL is not the serving role. Tell your operator."
        )
    return said


def _refusal(said: dict[str, Any]) -> PlatformError:
    error = RefusedThere(str(said.get("detail") or said.get("title") or "It was refused."))
    problems = said.get("errors") or ()
    return error.at(
        [FieldProblem(str(one.get("pointer", "")), str(one.get("detail", ""))) for one in problems]
    )
