"""What stands before Django: no body is taken in without a bound, whoever sends it."""

import pytest
from pytest_django.fixtures import Settings

from mlplatform.asgi import application
from tests.fakes.asgi import HANG, call

PATHS = ("/api/v1/predict/wine", "/api/v1/auth/login", "/admin/login/", "/nowhere")


@pytest.mark.parametrize("path", PATHS)
def test_a_body_without_end_is_413_after_so_many_bytes(path: str, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 5_000
    body = [b"x" * 1000] * 6 + [HANG]  # whoever reads on waits for ever
    reply = call(application, path, body, headers={"X-Request-ID": "mine"})
    assert (reply.status, reply.json()["code"]) == (413, "too_large")
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == "mine"
