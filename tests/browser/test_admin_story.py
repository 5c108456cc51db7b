"""The data scientist's story in a real browser, against the platform as ``manage.py dev`` runs it.

The pages are asked for what a person sees: words, not markup. Whatever the browser logs as an
error, what the content policy refuses, and every address of another host is a failure.
"""

import contextlib
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import joblib
import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.stack import tiny_model

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
PASSWORD = "a-long-enough-passphrase-27"
# How long a slow machine may take for one step; nobody is told that it should.
PATIENCE_MS = 180_000
QUIET = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed; apt-get install chromium"),
]


class Hostile:
    """A pickle that would run a command where it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@dataclass
class Site:
    """The running platform, the files to upload, and a page of a signed-out browser."""

    url: str
    files: Path
    page: Page
    wrongs: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Take note of all that a page of ours must not do."""
        self.page.on("console", lambda said: self._said(said.type, said.text))
        self.page.on("pageerror", lambda error: self._said("error", str(error)))
        self.page.on("request", self._asked)

    def _said(self, kind: str, text: str) -> None:
        if kind == "error" or "Content Security Policy" in text:
            self.wrongs.append(f"{self.page.url}: {text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.url}/", "data:", f"blob:{self.url}/")):
            self.wrongs.append(f"{self.page.url} asked {request.url}")

    def go(self, path: str) -> None:
        self.page.goto(f"{self.url}{path}")

    def sign_in(self) -> None:
        self.go("/")
        self.page.fill("[name=username]", "admin")
        self.page.fill("[name=password]", PASSWORD)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(f"{self.url}/admin/")

    def choose(self, model: str, file: str) -> None:
        """Fill the upload page in and press its button."""
        self.go("/admin/registry/modelversion/add/")
        self.page.fill("[name=name]", model)
        self.page.set_input_files("[name=file]", self.files / file)
        self.page.get_by_role("button", name="Upload file").click()

    def upload(self, model: str, file: str) -> None:
        """Upload a file and stay until its page has opened by itself."""
        self.choose(model, file)
        self.page.wait_for_url("**/registry/modelversion/*/change/")

    def sees(self, words: str) -> None:
        expect(self.page.get_by_text(words).first).to_be_visible(timeout=PATIENCE_MS)

    def confirm(self, action: str, reason: str) -> None:
        """Press an action of the page, give the reason in its dialog, and press it there."""
        self.page.get_by_text(action, exact=True).first.click()
        form = self.page.locator("form", has=self.page.locator("[name=reason]"))
        form.locator("[name=reason]").fill(reason)
        form.get_by_role("button", name=action, exact=True).click()

    def row(self, path: str, *words: str) -> None:
        """Open the row of a list in which all these words stand."""
        self.go(path)
        found = self.page.locator("tbody tr")
        for word in words:
            found = found.filter(has_text=word)
        found.first.get_by_role("link").first.click()
        self.page.wait_for_url(re.compile(r"/change/(\?|$)"))  # the list's filters come along

    def until_a_row(self, path: str) -> None:
        """Load a list anew until something stands in it: records arrive a moment later."""
        self.go(path)
        while self.page.locator("tbody tr a").count() == 0:  # the suite's own timeout ends it
            self.page.wait_for_timeout(500)
            self.page.reload()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def platform(data: Path) -> Iterator[str]:
    """``manage.py dev`` with its own SQLite folder, ready to answer."""
    bind = f"127.0.0.1:{free_port()}"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    settings = {
        "MLP_ENV_FILE": "0",
        "MLP_DEMO": "0",
        "MLP_DATA_DIR": str(data),
        "MLP_BIND": bind,
        "DJANGO_SUPERUSER_USERNAME": "admin",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        "DJANGO_SUPERUSER_EMAIL": "admin@example.org",
    }
    log = data.parent / "platform.log"
    with log.open("wb") as lines:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "dev"],
            cwd=ROOT,
            env={**kept, **settings},
            stdout=lines,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_ready(f"http://{bind}", process, log)
        yield f"http://{bind}"
    finally:
        end(process)


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    pause = 0.5
    with httpx.Client(timeout=30) as client:
        while True:
            assert process.poll() is None, f"it ended:\n{log.read_text(errors='replace')[-4000:]}"
            with contextlib.suppress(httpx.TransportError):
                if client.get(f"{url}/health/ready").status_code == 200:
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=pause)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ctrl-C, which drains all parts; a supervisor that does not answer is ended by its pid."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=90)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def make_files(folder: Path) -> None:
    (folder / "first.onnx").write_bytes(tiny_model(1))
    (folder / "second.onnx").write_bytes(tiny_model(2))
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "hostile.pkl").write_bytes(pickle.dumps(Hostile(folder / "trace")))
    rows, kinds = load_iris(return_X_y=True)
    flowers = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(rows, kinds)
    joblib.dump(flowers, folder / "flowers.joblib")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    # A short path: sockets of the platform lie below it.
    with tempfile.TemporaryDirectory(prefix="mlp-browser-") as folder:
        data = Path(folder) / "var"
        with platform(data) as reached_at:
            yield reached_at


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture
def site(url: str, browser: Browser, tmp_path: Path) -> Iterator[Site]:
    make_files(tmp_path)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    made = Site(url, tmp_path, context.new_page())
    made.watch()
    yield made
    context.close()


def release(site: Site, reason: str) -> None:
    site.confirm("Release version", reason)  # production is what the dialog proposes
    site.sees("is live in production")


def issue_key(site: Site) -> str:
    """Make a key for predictions; its secret is shown on this one page."""
    site.go("/admin/accounts/apikey/add/")
    site.page.fill("[name=name]", "robot")
    site.page.select_option("select[name=team]", index=1)
    site.page.get_by_role("button", name="Save", exact=True).click()
    secret = site.page.locator("#issued-key").inner_text().strip()
    site.page.get_by_role("link", name="I have stored it").click()
    site.page.wait_for_url("**/accounts/apikey/*/change/")
    assert secret not in site.page.content()
    return secret


def test_a_file_becomes_an_endpoint_that_is_rolled_back_asked_and_found_in_the_record(
    site: Site,
) -> None:
    site.sign_in()
    site.upload("tiny", "first.onnx")
    site.sees("The model answers a trial run")
    release(site, "The first of its kind")
    site.upload("tiny", "second.onnx")
    release(site, "A better shift")
    site.row("/admin/registry/endpoint/", "tiny", "production")
    site.sees("version 2 (primary, 100%)")
    site.confirm("Roll back", "The first was better")
    site.sees("Release 3 serves what release 1 served.")
    site.sees("The first was better")

    secret = issue_key(site)
    answer = ask(site, secret)
    assert answer["version"] == 1
    assert answer["predictions"] == [[pytest.approx(7), pytest.approx(8), pytest.approx(9)]]

    site.until_a_row("/admin/inference/prediction/")
    site.row(f"/admin/inference/prediction/?q={answer['prediction_id']}", "tiny")
    site.sees(answer["prediction_id"])
    assert site.wrongs == []


def ask(site: Site, secret: str) -> dict[str, Any]:
    """Ask until the version rolled back to answers: nodes follow a release within a moment."""
    with httpx.Client(headers={"X-API-Key": secret}, timeout=60) as client:
        while True:  # the suite's own timeout ends it
            reply = client.post(
                f"{site.url}/api/v1/predict/tiny", json={"instances": [[1, 2, 3, 4]]}
            )
            if reply.status_code == 200 and reply.json()["version"] == 1:
                found: dict[str, Any] = reply.json()
                return found
            site.page.wait_for_timeout(300)


def test_a_code_bearing_file_is_converted_a_hostile_one_refused_and_an_empty_one_not_sent(
    site: Site,
) -> None:
    site.sign_in()
    site.upload("flowers", "flowers.joblib")
    site.sees("The converted model answers like the original")
    site.upload("trap", "hostile.pkl")
    site.sees("which is not on the list of what a model may be made of. Nothing of it was run.")
    site.sees("What helps:")
    assert not (site.files / "trace").exists()

    site.choose("flowers", "empty.onnx")
    beside_the_field = site.page.locator("#file-error")
    expect(beside_the_field).to_have_text(
        "The file is empty. Choose the file that your training wrote.", timeout=PATIENCE_MS
    )
    expect(site.page.locator("[name=file]")).to_have_attribute("aria-invalid", "true")
    assert site.wrongs == []


def test_what_the_server_finds_wrong_stands_at_its_field(site: Site) -> None:
    site.sign_in()
    site.go("/admin/registry/modelversion/add/")
    site.page.fill("[name=name]", "numbers")
    site.page.fill("[name=metrics]", "not json")
    site.page.set_input_files("[name=file]", site.files / "first.onnx")
    site.page.get_by_role("button", name="Upload file").click()
    expect(site.page.locator("#metrics-error")).not_to_be_empty(timeout=PATIENCE_MS)
    expect(site.page.locator("[name=metrics]")).to_be_focused()
    expect(site.page.get_by_role("button", name="Upload file")).to_be_enabled()


@pytest.mark.parametrize(("path", "part"), [("/docs", ".opblock"), ("/redoc", "h1")])
def test_the_documentation_is_drawn_from_this_host_alone(site: Site, path: str, part: str) -> None:
    site.sign_in()
    site.go(path)
    expect(site.page.locator(part).first).to_be_visible(timeout=PATIENCE_MS)
    site.page.wait_for_load_state("networkidle")
    assert site.wrongs == []
