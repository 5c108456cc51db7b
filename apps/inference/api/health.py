"""Is this process alive, may it get traffic, and how are those it works with?

The first two are open, say one word, and ask neither database nor network: an outage of those must
not take the processes out of service that go on answering without them. The third is for dashboards
and wants `metrics:read`; it too is answered from what lies on this node.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from http import HTTPStatus
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.accounts import policies
from apps.accounts.policies import Action, Thing
from apps.core.api.exceptions import problem_of
from apps.inference import wiring
from apps.inference.api import door
from apps.inference.follower import State

SAFE = ("GET", "HEAD")
View = Callable[[HttpRequest], HttpResponse]


def _read_only(view: View) -> View:
    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        if request.method not in SAFE:
            refusal = problem_of(door.WrongMethod("Health is only read; use GET."))
            refusal["Allow"] = ", ".join(SAFE)
            return refusal
        reply = view(request)
        reply["Cache-Control"] = "no-store"
        return reply

    return guarded


@_read_only
def live(request: HttpRequest) -> HttpResponse:
    """GET /health/live: the process answers."""
    return _word("live", HTTPStatus.OK)


@_read_only
def ready(request: HttpRequest) -> HttpResponse:
    """GET /health and /health/ready: the process may get traffic, or the word for why not.

    One whose role is not to serve waits for no model, and loads none to say so.
    """
    if not settings.SERVES:
        return _word(State.READY.value, HTTPStatus.OK)
    state = wiring.serving().follower.state()
    is_ready = state is State.READY
    return _word(state.value, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)


def _word(word: str, status: HTTPStatus) -> HttpResponse:
    return HttpResponse(f"{word}\n", status=status, content_type="text/plain; charset=utf-8")


class DepsView(APIView):
    """GET /health/deps: the node's agent, its serving processes, and the record's backlog."""

    authentication_classes = ()
    permission_classes = ()

    @extend_schema(
        operation_id="health_deps",
        tags=["health"],
        summary="What this node works with",
        responses={200: OpenApiTypes.OBJECT},
    )
    def get(self, request: Request) -> HttpResponse:
        """Tell dashboards how the node is."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        policies.require(door.authenticate(headers), Action.METRICS_READ, Thing())
        return HttpResponse(
            orjson.dumps(_deps()),
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )


def _deps() -> dict[str, Any]:
    serving = wiring.serving()
    agent = serving.node.agent()
    return {
        "agent": None if agent is None else {**asdict(agent[0]), "age_seconds": round(agent[1], 1)},
        "workers": [asdict(one) for one in serving.node.living()],
        "this": asdict(serving.follower.report()),
    }
