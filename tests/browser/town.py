"""A small town for the stories: the demo's models, people with roles, a key, a team of strangers.

The demo releases its models before approvals are switched on; from then on each production release
waits for a second person. What a story does not click itself is asked of the API by its person.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser

from benchmarks.stack import tiny_model
from demo.files import examples
from tests.browser.site import PASSWORD, PATIENCE_MS, Site, platform

OPERATOR = "admin"
PEOPLE = {"sonja": "contributor", "tom": "maintainer", "ana": "viewer"}
TEAM, STRANGERS = "demo", "strangers"
WINE = examples()["wine"]
BEFORE, AFTER = 4, 12  # calls in the two periods that the analyst compares
LOOK_SECONDS = 0.3


@dataclass
class Town:
    """The running platform and everybody's way into it.

    Attributes:
        split: A whole minute: few calls of the wine model came before it, more after it.
    """

    url: str
    demo_key: str
    split: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60, trust_env=False))
    tokens: dict[str, str] = field(default_factory=dict)

    def call(self, who: str, method: str, path: str, **more: Any) -> Any:
        """Ask the API as a person; what it refuses is an error of the story."""
        headers = {"Authorization": f"Bearer {self._token(who)}"}
        reply = self.http.request(method, f"{self.url}/api/v1/{path}", headers=headers, **more)
        assert reply.is_success, f"{method} {path}: {reply.status_code} {reply.text[:500]}"
        return reply.json()

    def _token(self, who: str) -> str:
        if who not in self.tokens:
            wish = {"username": who, "password": PASSWORD}
            reply = self.http.post(f"{self.url}/api/v1/auth/login", json=wish)
            self.tokens[who] = str(reply.raise_for_status().json()["access"])
        return self.tokens[who]

    def send(self, who: str, model: str, content: bytes, *, team: str, name: str) -> int:
        """Upload a file without waiting for its verdict; return the version's number."""
        wish = {"name": model, "team": team}
        made = self.call(who, "POST", "models/upload", data=wish, files={"file": (name, content)})
        return int(made["number"])

    def upload(self, who: str, model: str, shift: float, *, team: str = TEAM) -> int:
        """Upload a tiny model and wait until it is ready."""
        number = self.send(who, model, tiny_model(shift), team=team, name="model.onnx")
        while True:  # the suite's own timeout ends it
            state = self.call(who, "GET", f"models/{model}/versions/{number}")["state"]
            if state == "ready":
                return number
            assert state in ("uploaded", "validating"), state
            time.sleep(LOOK_SECONDS)

    def ask_for_release(self, who: str, model: str, number: int, reason: str) -> None:
        path = f"models/{model}/endpoints/production/releases"
        made = self.call(who, "POST", path, json={"version": number, "reason": reason})
        assert made["state"] == "awaiting_approval"

    def ask_wine(self, times: int) -> None:
        """Ask the demo's model for a prediction, some of them wrongly."""
        for number in range(times):
            asked = {"instances": [["x"]]} if number % 4 == 3 else WINE
            reply = self.http.post(
                f"{self.url}/api/v1/predict/wine", json=asked, headers={"X-API-Key": self.demo_key}
            )
            assert reply.status_code in (200, 400), reply.text


@contextlib.contextmanager
def town_with(browser: Browser) -> Iterator[Town]:
    """Start the platform twice: for the demo, then with approvals; let everybody move in."""
    # A short path: sockets of the platform lie below it.
    with tempfile.TemporaryDirectory(prefix="mlp-story-") as folder:
        data = Path(folder) / "var"
        with platform(data, MLP_DEMO="1"):
            key = _demo_key(data)
        with platform(data, MLP_DEMO="0", MLP_REQUIRE_APPROVAL="1") as url:
            town = Town(url, key)
            with contextlib.closing(town.http):
                _ask_before_the_split(town)
                _move_in(town, browser, Path(folder))
                _ask_after_the_split(town)
                yield town


def _demo_key(data: Path) -> str:
    kept = data / "demo.key"
    while not kept.exists():  # the suite's own timeout ends it
        time.sleep(LOOK_SECONDS)
    return kept.read_text(encoding="ascii").strip()


def _ask_before_the_split(town: Town) -> None:
    town.ask_wine(BEFORE)
    town.split = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)


def _ask_after_the_split(town: Town) -> None:
    time.sleep(max(0.0, (town.split - datetime.now(UTC)).total_seconds()))
    town.ask_wine(AFTER)


def _move_in(town: Town, browser: Browser, folder: Path) -> None:
    """Make the people on the operator's pages, and a team that is none of theirs."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    site = Site(town.url, folder, context.new_page())
    site.sign_in()
    for name, role in PEOPLE.items():
        make_person(site, name)
        wish = {"username": name, "role": role}
        town.call(OPERATOR, "POST", f"teams/{TEAM}/members", json=wish)
    context.close()
    town.call(OPERATOR, "POST", "teams", json={"slug": STRANGERS, "name": "Strangers"})
    town.upload(OPERATOR, "hidden", 1, team=STRANGERS)


def make_person(site: Site, name: str) -> None:
    """Make a sign-in on the page for it, and let its owner use these pages."""
    site.go("/admin/accounts/user/add/")
    site.page.fill("[name=username]", name)
    site.page.fill("[name=email]", f"{name}@example.org")
    site.page.fill("[name=password1]", PASSWORD)
    site.page.fill("[name=password2]", PASSWORD)
    site.page.locator("[name=_continue], [name=_save]").first.click()
    site.page.wait_for_url("**/accounts/user/*/change/")
    site.page.get_by_label("Uses these pages").check()
    site.page.locator("[name=_save]").first.click()
    site.page.wait_for_url("**/accounts/user/")
    site.sees(name)
