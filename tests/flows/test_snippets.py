"""Every request that a page shows runs as it stands: each language, each model of the demo."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import httpx
import pytest

from demo.files import NAMES
from tests.flows.test_make_run import Run, environment, running

__all__ = ["environment"]

COMMANDS = {"curl": ["bash"], "Python": [sys.executable, "-"], "JavaScript": ["node", "-"]}
SHOWN = re.compile(r'<pre[^>]* aria-label="([^"]+)"><code>(.*?)</code></pre>', re.DOTALL)
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Shown:
    """A running platform with its demo, as its admin sees it in a browser."""

    key: str
    client: httpx.Client

    def page_of(self, model: str) -> str:
        """Return the page of a model, found in the list of models as a person finds it."""
        listed = self.client.get(f"/admin/registry/registeredmodel/?q={model}").text
        links = re.findall(r'href="(/admin/registry/registeredmodel/\d+/change/)[^"]*"', listed)
        names = re.findall(r'id="cell-model-rates-([^"]+)"', listed)
        return self.client.get(dict(zip(names, dict.fromkeys(links), strict=True))[model]).text

    def snippets(self, page: str) -> dict[str, str]:
        return {name: unescape(text) for name, text in SHOWN.findall(page)}


def sign_in(client: httpx.Client, password: str) -> None:
    found = TOKEN.search(client.get("/admin/login/").text)
    assert found is not None
    sent = {"username": "admin", "password": password, "csrfmiddlewaretoken": found[1]}
    headers = {"Referer": str(client.base_url)}
    reply = client.post("/admin/login/?next=/admin/", data=sent, headers=headers)
    assert "Log in" not in reply.text


@pytest.fixture
def shown(environment: dict[str, str]) -> Iterator[Shown]:
    with running(environment) as run:
        password = run.wait_for(r"Admin 'admin' was made\. Password: (\S{12,})")[1]
        run.curl()  # the demo is live and has its key
        key = (Path(environment["MLP_DATA_DIR"]) / "demo.key").read_text().strip()
        url = f"http://{environment['MLP_BIND']}"
        with httpx.Client(base_url=url, timeout=60, follow_redirects=True) as client:
            sign_in(client, password)
            yield Shown(key, client)
        ended(run)


def ended(run: Run) -> None:
    run.end()
    assert run.process.returncode == 0


def test_every_snippet_of_every_demo_model_runs_unedited(shown: Shown, tmp_path: Path) -> None:
    ran = []
    for model in NAMES:
        snippets = shown.snippets(shown.page_of(model))
        assert set(snippets) == set(COMMANDS), f"{model} shows {sorted(snippets)}"
        for name, text in snippets.items():
            done = subprocess.run(
                COMMANDS[name],
                input=text.encode(),
                env={"PATH": os.environ["PATH"], "MLP_API_KEY": shown.key},
                cwd=tmp_path,
                capture_output=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{model}, {name}: {done.stderr.decode()}"
            assert b'"predictions"' in done.stdout, f"{model}, {name}: {done.stdout.decode()}"
            ran.append((model, name))
    assert len(ran) == len(NAMES) * len(COMMANDS)
