"""What the demo asks of the platform: HTTP requests, and nothing else."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

import httpx

from demo.files import Trained

ENVIRONMENT = "production"
TEAM = "demo"
WAIT_SECONDS = 300.0
LOOK_SECONDS = 0.5
UNDER_WAY = frozenset({"uploaded", "validating"})
SPREAD_SECONDS = 60.0
# Enough to try everything and to measure a little; nobody is offered it for a key of her own.
PLAN = {
    "name": "demo",
    "title": "Demo",
    "requests_per_minute": 600,
    "rows_per_minute": 6_000,
    "rows_per_day": 100_000,
    "is_offered": False,
}
# What a serving process says that has not yet heard of a new release or a new key.
NOT_YET = frozenset({HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN})
# What it says while a model is still loading.
BUSY = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Made:
    """One version that the platform keeps."""

    number: int
    state: str


class Platform:
    """The platform at an address, as one person with a token sees it."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self._as_person = {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(
            base_url=f"{self.url}/api/v1/",
            timeout=60,
            trust_env=False,  # no proxy stands between a machine and itself
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def newest_good(self, model: str) -> Made | None:
        """Return the newest version of a model that is ready or on its way, or None."""
        reply = self._send("GET", f"models/{model}/versions")
        if reply.status_code == HTTPStatus.NOT_FOUND:
            return None
        for one in self._body(reply, f"look at the versions of {model}")["results"]:
            if one["state"] in UNDER_WAY or one["state"] == "ready":
                return Made(one["number"], one["state"])
        return None

    def upload(self, trained: Trained) -> Made:
        """Upload a model file with everything that is known about it."""
        facts = {
            "metrics": trained.metrics,
            "params": trained.params,
            "tags": trained.tags,
            "lineage": trained.lineage,
            "example": trained.example,
        }
        if trained.signature is not None:
            facts["signature"] = trained.signature
        fields = {name: json.dumps(value) for name, value in facts.items()}
        reply = self._send(
            "POST",
            "models/upload",
            data={
                "name": trained.name,
                "team": TEAM,
                "description": trained.description,
                **fields,
            },
            files={"file": (trained.filename, trained.content, "application/octet-stream")},
        )
        body = self._body(reply, f"upload {trained.filename}")
        return Made(body["number"], body["state"])

    def wait_until_ready(self, model: str, number: int) -> None:
        """Return when validation found the version good."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            reply = self._send("GET", f"models/{model}/versions/{number}")
            body = self._body(reply, f"look at {model} {number}")
            if body["state"] == "ready":
                return
            if body["state"] not in UNDER_WAY:
                reason = (body.get("report") or {}).get("reason") or "its report says why"
                raise DemoError(f"{model} {number} is {body['state']}: {reason}")
            if time.monotonic() > deadline:
                raise DemoError(
                    f"{model} {number} is still {body['state']} after {WAIT_SECONDS:.0f} s. "
                    "Is the worker running? Its lines above begin with `work`."
                )
            time.sleep(LOOK_SECONDS)

    def live_version(self, model: str) -> int | None:
        """Return the version that answers in production, or None."""
        reply = self._send("GET", f"models/{model}/endpoints/{ENVIRONMENT}")
        if reply.status_code == HTTPStatus.NOT_FOUND:
            return None
        live = self._body(reply, f"look at the endpoint of {model}")["release"]
        return int(live["arms"][0]["version"]) if live else None

    def release(self, model: str, number: int, reason: str) -> None:
        """Make a version answer in production."""
        reply = self._send(
            "POST",
            f"models/{model}/endpoints/{ENVIRONMENT}/releases",
            json={"version": number, "reason": reason},
        )
        body = self._body(reply, f"release {model} {number}")
        if body["state"] != "live":
            raise DemoError(
                f"The release of {model} {number} is {body['state'].replace('_', ' ')}: another "
                f"person approves it at {self.url}/admin/. Then start again for the demo's key."
            )

    def make_key(self, name: str) -> str:
        """Return the text of a new key that may predict and nothing else."""
        wish = {
            "name": name,
            "team": TEAM,
            "scopes": ["predict"],
            "environments": [ENVIRONMENT],
            "plan": self._plan(),
        }
        return str(self._body(self._send("POST", "keys", json=wish), "make a key")["key"])

    def _plan(self) -> str:
        """Return the name of the demo's own plan, which is made where it is not there yet."""
        name = str(PLAN["name"])
        reply = self._send("GET", f"plans/{name}")
        if reply.status_code == HTTPStatus.NOT_FOUND:
            reply = self._send("POST", "plans", json=PLAN)
        return str(self._body(reply, "make a plan")["name"])

    def accepts(self, model: str, question: Mapping[str, Any], key: str) -> bool:
        """Return whether a model answers to a key; a model that is still loading is waited for."""
        return self._predict(model, question, key, passing=frozenset()).is_success

    def answer(self, model: str, question: Mapping[str, Any], key: str) -> Any:
        """Predict, waiting for a new release and a new key to reach the serving processes."""
        reply = self._predict(model, question, key, passing=NOT_YET)
        return self._body(reply, f"predict with {model}")

    def _predict(
        self, model: str, question: Mapping[str, Any], key: str, *, passing: frozenset[HTTPStatus]
    ) -> httpx.Response:
        """Ask a model with a key, as any client program does."""
        deadline = time.monotonic() + SPREAD_SECONDS
        while True:
            reply = self._send(
                "POST",
                f"predict/{model}",
                json=question,
                headers={"X-API-Key": key},
            )
            if reply.status_code not in passing | BUSY or time.monotonic() > deadline:
                return reply
            time.sleep(LOOK_SECONDS)

    def _send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **what: Any
    ) -> httpx.Response:
        try:
            return self._client.request(method, path, headers=headers or self._as_person, **what)
        except httpx.TransportError as error:
            raise DemoError(
                f"{self.url} does not answer ({error}). Start the platform, or name its address "
                "in MLP_DEMO_URL."
            ) from error

    def _body(self, reply: httpx.Response, deed: str) -> Any:
        if reply.is_success:
            return reply.json()
        try:
            problem = reply.json()
        except ValueError:
            problem = {}
        why = [problem.get("detail") or f"status {reply.status_code}"]
        why += [f"{one.get('pointer')}: {one.get('detail')}" for one in problem.get("errors", [])]
        asked = f"request id {reply.headers.get('X-Request-ID', 'unknown')}"
        raise DemoError(f"Could not {deed}: {' '.join(why)} ({reply.status_code}, {asked})")
