"""A pasted request is the question that was shown, whatever characters it holds."""

import ast
import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from apps.registry.snippets import MOST_WORD, Snippet, predict_url, snippets_for

COMMANDS = {"bash": ["bash"], "python": [sys.executable, "-"], "javascript": ["node", "-"]}
LANGUAGES = list(COMMANDS)
KEY = "mlp_live_abc"
PNG = b"\x89PNG\r\n\x1a\n"


class Heard(BaseHTTPRequestHandler):
    """Keeps what it was asked and says nothing of importance."""

    asked: "list[tuple[str, str, Any]]"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, self.headers["X-API-Key"], json.loads(body)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    Heard.asked = []
    server = HTTPServer(("127.0.0.1", 0), Heard)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def of(language: str, snippets: tuple[Snippet, ...]) -> str:
    return next(one.text for one in snippets if one.language == language)


def run(language: str, text: str, folder: Path | None = None) -> tuple[str, str, Any]:
    """Run a snippet as it stands; return what the server heard."""
    Heard.asked.clear()
    done = subprocess.run(
        COMMANDS[language],
        input=text.encode(),
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "MLP_API_KEY": KEY},
        cwd=folder,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    (heard,) = Heard.asked
    return heard


AWKWARD = {
    "instances": [
        {"it's": "a 'quoted' \"word\"\nand a line, a tab\t, a backslash \\ and $HOME `id` $(id)"},
        {"naïve": "日本語 🍷 \u202e\u2028", "JSON": None, "deep": [True, False, -1.5e-7, 10**15]},
        {"!": "! @file %s {x} {{y}} </script> \x00 \x7f \x1b[31m"},
    ]
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_any_character_arrives_as_it_was(language: str, host: str) -> None:
    text = of(language, snippets_for(host=host, model="wine", body=AWKWARD))
    assert run(language, text) == ("/api/v1/predict/wine", KEY, AWKWARD)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_question_longer_than_a_command_line_arrives_whole(language: str, host: str) -> None:
    body = {"inputs": {"x": ["it's " * 10] * (MOST_WORD // 20)}}
    text = of(language, snippets_for(host=host, model="m", environment="staging", body=body))
    assert run(language, text) == ("/api/v1/predict/m?environment=staging", KEY, body)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_large_image_is_read_from_the_file_that_is_named(
    language: str, host: str, tmp_path: Path
) -> None:
    image = PNG + bytes(range(256)) * 40
    said = base64.b64encode(image).decode()
    awkward = "$(id) `id` \\ 'it' IMAGE_FILE"
    body = {"instances": [{"image": {"b64": said}, "note": awkward}]}
    text = of(language, snippets_for(host=host, model="digits", body=body))
    assert "image.png" in text
    assert len(text) < 1500
    (tmp_path / "image.png").write_bytes(image)
    assert run(language, text, tmp_path)[2] == body


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_small_image_stands_in_the_text(language: str, host: str) -> None:
    body = {"instances": [{"image": {"b64": base64.b64encode(PNG).decode()}}]}
    text = of(language, snippets_for(host=host, model="digits", body=body))
    assert run(language, text)[2] == body


def test_two_images_are_two_files_and_the_same_image_twice_is_one() -> None:
    first, second = "iVBOR" + "A" * 5000, "/9j/" + "B" * 5000
    body = {"instances": [{"i": {"b64": one}} for one in (first, second, first)]}
    python = of("python", snippets_for(host="http://h", model="m", body=body))
    assert (python.count("image-1.png"), python.count("image-2.jpg")) == (2, 1)


def test_direction_marks_and_unseen_characters_are_shown_as_what_they_are() -> None:
    body = {"instances": [{"x": "a\u202eb\u200bc\ud800"}]}
    for one in snippets_for(host="http://h", model="m", body=body):
        assert not set("\u202e\u200b\ud800") & set(one.text)


def test_an_address_keeps_production_out_and_names_what_is_not_production() -> None:
    assert predict_url("https://h/", "wine.v2") == "https://h/api/v1/predict/wine.v2"
    staging = predict_url("https://h", "wine", "staging")
    assert staging == "https://h/api/v1/predict/wine?environment=staging"


JSON = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.text(max_size=40),
    lambda inner: (
        some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_no_question_can_leave_its_quotes_in_python(body: Any) -> None:
    text = of("python", snippets_for(host="http://h", model="m", body={"instances": [body]}))
    tree = ast.parse(text)
    assigned = next(node for node in tree.body if isinstance(node, ast.Assign))
    assert ast.literal_eval(assigned.value) == {"instances": [body]}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_no_question_can_leave_its_quotes_in_a_shell(body: Any) -> None:
    text = of("bash", snippets_for(host="http://h", model="m", body={"instances": [body]}))
    shown = text.replace("curl -sS", 'show() { printf %s "${!#}"; }; show', 1)
    done = subprocess.run(["bash"], input=shown.encode(), capture_output=True, check=True)
    assert json.loads(done.stdout) == {"instances": [body]}
