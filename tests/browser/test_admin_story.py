"""The data scientist's story in a real browser, against the platform as ``manage.py dev`` runs it.

The pages are asked for what a person sees: words, not markup. Whatever the browser logs as an
error, what the content policy refuses, and every address of another host is a failure.
"""

import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import joblib
import pytest
from playwright.sync_api import Browser, expect
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.stack import tiny_model
from tests.browser.site import CHROMIUM, PATIENCE_MS, Site, platform

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
    """Release the version whose page is open; production is what the page proposes."""
    site.page.get_by_role("link", name="Release version", exact=True).click()
    site.page.fill("[name=reason]", reason)
    site.page.get_by_role("button", name="Release to production", exact=True).click()
    site.page.wait_for_url("**/registry/release/*/change/")
    site.sees("is live; workers take it over")
    site.sees("; done after ")  # the page follows the roll-out by itself


def issue_key(site: Site) -> str:
    """Make a key for predictions; its secret is shown on this one page."""
    site.go("/admin/accounts/apikey/add/")
    site.page.fill("[name=name]", "robot")
    site.page.select_option("select[name=team]", index=1)
    site.page.get_by_role("button", name="Make key", exact=True).click()
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
    site.sees("Version 2")
    site.page.get_by_role("link", name="Roll back to release 1", exact=True).first.click()
    site.sees("Moves 100 % of the traffic from version 2 to version 1.")
    site.page.fill("[name=reason]", "The first was better")
    site.page.get_by_role("button", name="Roll back to release 1", exact=True).click()
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
    site.page.get_by_text("What you know of it").click()
    site.page.fill("[name=metrics]", '{"f1": "high"}')
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
