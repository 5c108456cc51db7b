"""The provider is asked through ``core.http``, like everything else outside.

allauth speaks to a ``requests.Session``; ours hands each request to the one outbound client, so
that names are looked up once, redirects are not followed, answers are bounded, and a provider in
the own network needs ``MLP_OUTBOUND_ALLOW``.
"""

from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from apps.core import http
from apps.core.errors import PlatformError


class OutboundAdapter(BaseAdapter):
    """Carries a prepared request to ``core.http`` and its answer back."""

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]  # none of what it bounds is the caller's to say
        body = request.body or b""
        assert isinstance(body, str | bytes)  # forms only; nothing is streamed out
        sent = body.encode() if isinstance(body, str) else body
        try:
            answer = http.send(
                request.method or "GET",
                request.url or "",
                body=sent,
                headers=_ours(request.headers),
            )
        except PlatformError as error:
            raise requests.ConnectionError(error.message, request=request) from error
        if answer.is_cut:
            raise requests.ConnectionError("The provider's answer is too long.", request=request)
        return _response(request, answer)

    def close(self) -> None:
        """Hold nothing open."""


class OutboundSession(requests.Session):
    """Knows no other way than the adapter, and no proxy or password of the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        for scheme in ("http://", "https://"):
            self.mount(scheme, OutboundAdapter())


def _ours(headers: Mapping[str, str | bytes]) -> dict[str, str]:
    """Keep what the protocol needs; names of software and encodings are the client's to say."""
    kept = ("authorization", "content-type", "accept")
    return {name: _text(value) for name, value in headers.items() if name.lower() in kept}


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _response(request: requests.PreparedRequest, answer: http.Answer) -> requests.Response:
    made = requests.Response()
    made.status_code = answer.status
    made.headers = CaseInsensitiveDict(answer.headers)
    made.url = request.url or ""
    made.request = request
    made.encoding = "utf-8"
    made._content = answer.body  # noqa: SLF001 - how a response is filled without a socket
    return made
