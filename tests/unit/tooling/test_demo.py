"""The demo's own part: real training, a kept key, and sentences when the platform refuses."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from apps.registry.signature import signature_from_json
from demo import digits
from demo.__main__ import keep, kept_key
from demo.files import NAMES, examples
from demo.platform import DemoError, Platform
from demo.training import TRAINERS


class Answers(BaseHTTPRequestHandler):
    """Answers every request with what the test laid down for its method and path."""

    replies: dict[str, tuple[int, Any]]
    seen: list[tuple[str, dict[str, str]]]

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((f"{self.command} {self.path}", dict(self.headers)))
        status, body = self.replies.get(f"{self.command} {self.path}", (404, {"detail": "nothing"}))
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Request-ID", "asked-1")
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _answer  # noqa: N815 - the base class's names

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def answers() -> Iterator[tuple[Platform, type[Answers]]]:
    class Mine(Answers):
        replies: dict[str, tuple[int, Any]] = {}
        seen: list[tuple[str, dict[str, str]]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Mine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Platform(f"http://127.0.0.1:{server.server_port}", "token") as platform:
            yield platform, Mine
        server.shutdown()


def test_every_model_is_trained_and_better_than_guessing() -> None:
    trained = {name: TRAINERS[name]() for name in NAMES}
    assert trained["wine"].metrics["accuracy"] > 0.9
    assert trained["diabetes"].metrics["r2"] > 0.3
    assert trained["digits"].metrics["accuracy"] > 0.95
    assert trained["tumour"].metrics["accuracy"] > 0.95
    assert trained["progression"].metrics["r2"] > 0.4
    assert 0.85 < trained["progression"].metrics["share_within_interval"] < 0.95
    assert set(trained) == set(TRAINERS) == set(examples())


def test_the_exported_wine_answers_its_example_like_a_classifier() -> None:
    session = onnxruntime.InferenceSession(TRAINERS["wine"]().content)
    rows = np.array(examples()["wine"]["instances"], dtype=np.float32)
    label, probabilities = session.run(None, {"features": rows})
    assert label.tolist() == [0]  # the first wine of the data set is of the first cultivar
    assert probabilities.shape == (1, 3)


def test_the_example_of_the_digits_is_a_png_of_a_held_out_digit() -> None:
    data = digits.load()
    (row,) = examples()["digits"]["instances"]
    assert base64.b64decode(row["image"]["b64"]) == digits.png_of(data.held_pixels[0])


def test_the_signature_of_the_digits_can_be_read() -> None:
    signature = signature_from_json(digits.SIGNATURE)
    assert signature.is_one_image
    assert signature.outputs[0].classes == tuple("0123456789")


def test_training_twice_gives_the_same_model() -> None:
    assert TRAINERS["diabetes"]().metrics == TRAINERS["diabetes"]().metrics


def test_a_key_is_kept_for_its_owners_eyes_only(tmp_path: Path) -> None:
    keep(tmp_path / "sub" / "demo.key", "mlp_live_x")
    assert (tmp_path / "sub" / "demo.key").read_text() == "mlp_live_x\n"
    assert (tmp_path / "sub" / "demo.key").stat().st_mode & 0o777 == 0o600


def test_a_kept_key_is_used_only_while_every_model_answers_to_it(
    tmp_path: Path, answers: tuple[Platform, type[Answers]]
) -> None:
    platform, server = answers
    assert kept_key(platform, tmp_path / "demo.key") is None
    keep(tmp_path / "demo.key", "mlp_live_x")
    server.replies = {f"POST /api/v1/predict/{name}": (200, {}) for name in NAMES}
    assert kept_key(platform, tmp_path / "demo.key") == "mlp_live_x"
    assert "Authorization" not in server.seen[-1][1]
    server.replies["POST /api/v1/predict/wine"] = (403, {"detail": "revoked"})
    assert kept_key(platform, tmp_path / "demo.key") is None


def test_a_refusal_is_told_in_the_platforms_own_words(
    answers: tuple[Platform, type[Answers]],
) -> None:
    platform, server = answers
    server.replies["GET /api/v1/plans/demo"] = (200, {"name": "demo"})
    server.replies["POST /api/v1/keys"] = (
        400,
        {"detail": "Some fields are wrong.", "errors": [{"pointer": "/team", "detail": "None."}]},
    )
    with pytest.raises(DemoError, match=r"make a key: Some fields.*/team: None.*asked-1"):
        platform.make_key("demo")


def test_the_demos_key_is_on_a_plan_of_its_own_that_is_made_once(
    answers: tuple[Platform, type[Answers]],
) -> None:
    platform, server = answers
    server.replies["POST /api/v1/plans"] = (201, {"name": "demo"})
    server.replies["POST /api/v1/keys"] = (201, {"key": "text"})
    assert platform.make_key("demo") == "text"
    server.replies["GET /api/v1/plans/demo"] = (200, {"name": "demo"})
    del server.replies["POST /api/v1/plans"]
    assert platform.make_key("demo") == "text"


def test_a_rejected_version_ends_the_demo_with_its_reason(
    answers: tuple[Platform, type[Answers]],
) -> None:
    platform, server = answers
    server.replies["GET /api/v1/models/wine/versions/1"] = (
        200,
        {"state": "rejected", "report": {"reason": "It is empty."}},
    )
    with pytest.raises(DemoError, match=r"wine 1 is rejected: It is empty\."):
        platform.wait_until_ready("wine", 1)


def test_a_release_that_waits_for_approval_says_who_has_to_act(
    answers: tuple[Platform, type[Answers]],
) -> None:
    platform, server = answers
    server.replies["POST /api/v1/models/wine/endpoints/production/releases"] = (
        202,
        {"state": "awaiting_approval"},
    )
    with pytest.raises(DemoError, match="another person approves it"):
        platform.release("wine", 1, "because")


def test_a_platform_that_is_not_there_is_said_so() -> None:
    with (
        Platform("http://127.0.0.1:9", "token") as platform,
        pytest.raises(DemoError, match="does not answer"),
    ):
        platform.live_version("wine")


@pytest.mark.parametrize("name", ["tumour", "progression"])
def test_training_a_torch_model_twice_gives_the_same_file(name: str) -> None:
    assert TRAINERS[name]().content == TRAINERS[name]().content
