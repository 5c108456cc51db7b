"""A real OpenID Connect provider in a process of its own: ``python -m tests.fakes.oidc_provider``.

The provider of the package forgets PKCE, so the rule of RFC 7636 stands in front of it here: a code
that was asked for with a challenge is given out only for its verifier. It also keeps what it was
asked, and can forget the nonce on demand, so that tests see both.
"""

import base64
import hashlib
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import DEVNULL, PIPE, Popen
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm


@dataclass(frozen=True, slots=True)
class Provider:
    """The running provider, as its administrator sees it."""

    issuer: str

    @property
    def place(self) -> str:
        return urlsplit(self.issuer).netloc

    def knows(self, sub: str, **claims: Any) -> None:
        httpx.put(f"{self.issuer}/users/{sub}", json=claims).raise_for_status()

    def consents(self, address: str, sub: str) -> str:
        """Sign in at the provider; return where it sends the browser."""
        assert httpx.get(address).status_code == 200
        reply = httpx.post(address, data={"sub": sub})
        assert reply.status_code == 302, reply.text
        return reply.headers["location"]

    def asked(self) -> list[dict[str, Any]]:
        """Return what came over the wire: questions for a code, and exchanges."""
        kept: list[dict[str, Any]] = httpx.get(f"{self.issuer}/asked").json()
        return kept

    def lie(self, **claims: Any) -> None:
        """Say these of everybody where user info is asked for; `forged` shows another key."""
        httpx.put(f"{self.issuer}/lies", json=claims).raise_for_status()


@contextmanager
def running() -> Iterator[Provider]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    words = [sys.executable, "-W", "ignore", "-m", "tests.fakes.oidc_provider", str(port)]
    process = Popen(words, stdout=PIPE, stderr=DEVNULL, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield Provider(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.communicate()


def _challenge_of(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _lied(path: str, true: dict[str, Any], lies: dict[str, Any]) -> dict[str, Any]:
    if path == "/userinfo":
        return {**true, **lies}
    return {"keys": [json.loads(RSAAlgorithm.to_jwk(_other_key()))]} if "forged" in lies else true


def _other_key() -> rsa.RSAPublicKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()


def main(port: int) -> None:
    import flask
    import oidc_provider_mock
    from werkzeug.serving import make_server

    # The package ships no types, hence the ignores below.
    app = oidc_provider_mock.app(require_nonce=True)
    asked: list[dict[str, Any]] = []
    challenges: dict[str, str] = {}
    lies: dict[str, Any] = {}

    @app.before_request  # type: ignore[untyped-decorator]  # no types
    def pkce() -> Any:
        if flask.request.path == "/oauth2/token":
            form = flask.request.form
            asked.append({"door": "token", **form, "by": flask.request.authorization is not None})
            if challenges.pop(form["code"], "") != _challenge_of(form.get("code_verifier", "")):
                return {"error": "invalid_grant"}, 400
        return None

    @app.after_request  # type: ignore[untyped-decorator]  # no types
    def remember(reply: Any) -> Any:
        if flask.request.path == "/oauth2/authorize" and reply.status_code == 302:
            given = parse_qs(urlsplit(reply.headers["location"]).query)
            asked.append({"door": "authorize", **flask.request.args})
            if flask.request.args.get("code_challenge_method") == "S256" and "code" in given:
                challenges[given["code"][0]] = flask.request.args["code_challenge"]
        if lies and flask.request.path in {"/jwks", "/userinfo"}:
            reply.set_data(json.dumps(_lied(flask.request.path, reply.get_json(), lies)))
        return reply

    @app.get("/asked")  # type: ignore[untyped-decorator]  # no types
    def told() -> Any:
        return flask.jsonify(asked)

    @app.put("/lies")  # type: ignore[untyped-decorator]  # no types
    def lie() -> Any:
        lies.clear()
        lies.update(flask.request.get_json())
        return "", 204

    server = make_server("127.0.0.1", port, app, threaded=True)
    print("ready", flush=True)  # noqa: T201 - how the starter knows
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
