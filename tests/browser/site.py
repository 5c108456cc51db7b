"""The platform in a real browser: what starts it, what a page of ours must not do, what people do.

The pages are asked for what a person sees: words, not markup. Whatever the browser logs as an
error, what the content policy refuses, and every address of another host is a failure.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # ships none
from playwright.sync_api import Page, Request, expect

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
# What axe-core calls serious or critical is a failure; of the rest it is told in the message.
BAD = ("serious", "critical")


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

    def sign_in(self, username: str = "admin", password: str = PASSWORD) -> None:
        self.go("/")
        self.page.fill("[name=username]", username)
        self.page.fill("[name=password]", password)
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

    def settle(self) -> None:
        """Wait until the page's parts have come from their own addresses."""
        self.page.wait_for_load_state("networkidle")
        expect(self.page.locator(".mp-loading")).to_have_count(0, timeout=PATIENCE_MS)

    def is_wide(self) -> bool:
        """Whether the page can be pushed sideways: on a phone, something is cut off then."""
        wider: bool = self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth + 1"
        )
        return wider

    def hard_to_use(self) -> list[str]:
        """What axe-core finds serious on this page, in one line each."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in found
            if one["impact"] in BAD
            for node in one["nodes"]
        ]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def platform(data: Path, **more: str) -> Iterator[str]:
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
        **more,
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
