"""Asks the serving role for a prediction, as the person who tries it.

The address is the operator's own (``MLP_SERVING_URL``), never a user's: it may lie in the own
network and speak plain HTTP there. Redirects are not followed, time and answer are bounded.
"""

from dataclasses import dataclass

import httpx
from django.conf import settings

from apps.core.errors import Unavailable

CONNECT_SECONDS = 3.0
MOST_READ_BYTES = 32 * 1024**2


class ServingUnreachable(Unavailable):
    """The serving role does not answer."""

    code = "serving_unreachable"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the serving role said."""

    status: int
    body: bytes


def try_version(
    model: str, version: int, *, environment: str, body: bytes, token: str, seconds: float
) -> Reply:
    """Send one question to one version; it is recorded as a try.

    Args:
        model: Name of the model.
        version: Its number.
        environment: Where the try is recorded.
        body: The question as JSON.
        token: A short-lived access token of the person.
        seconds: How long the answer is waited for.

    Raises:
        ServingUnreachable: There was no answer in time, or it is not one of the serving role.
    """
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "X-Request-Timeout-Ms": str(max(1, int(seconds * 1000))),
        "X-Prediction-Source": "try",
    }
    request = httpx.Request(
        "POST",
        f"{settings.SERVING_URL}/api/v1/predict/{model}",
        params={"environment": environment, "version": str(version)},
        headers=headers,
        content=body,
        extensions={"timeout": httpx.Timeout(seconds + 1, connect=CONNECT_SECONDS).as_dict()},
    )
    try:
        with httpx.Client(follow_redirects=False, trust_env=False) as client:
            answer = client.send(request, stream=True)
            return Reply(answer.status_code, _read(answer))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServingUnreachable(
            "The serving role does not answer at present. Try again in a moment; if it stays, tell "
            "your operator (MLP_SERVING_URL)."
        ) from error


def _read(answer: httpx.Response) -> bytes:
    parts, size = [], 0
    for part in answer.iter_bytes():
        size += len(part)
        if size > MOST_READ_BYTES:
            raise ServingUnreachable("The answer is too large for a page. Ask with the API.")
        parts.append(part)
    return b"".join(parts)
