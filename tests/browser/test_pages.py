"""Every page, light and dark, wide and narrow, after the demo: nothing is cut off, logged as an
error, asked of another host, or hard to use for somebody who does not see it.

With MLP_SCREENSHOTS naming a folder, each page is kept there as a picture to look at.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.browser.site import CHROMIUM, PATIENCE_MS, Site, platform

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed; apt-get install chromium"),
]
LISTS = {
    "models": "/admin/registry/registeredmodel/",
    "versions": "/admin/registry/modelversion/",
    "endpoints": "/admin/registry/endpoint/",
    "releases": "/admin/registry/release/",
    "predictions": "/admin/inference/prediction/",
    "keys": "/admin/accounts/apikey/",
    "teams": "/admin/accounts/team/",
    "people": "/admin/accounts/user/",
    "audit": "/admin/core/event/",
    "work": "/admin/core/work/",
}
OTHERS = {
    "home": "/admin/",
    "upload": "/admin/registry/modelversion/add/",
    "traffic": "/admin/inference-pages/traffic",
    "new-key": "/admin/accounts/apikey/add/",
    "new-model": "/admin/registry/registeredmodel/add/",
    "new-team": "/admin/accounts/team/add/",
    "notifications": "/admin/monitoring/notifications",
    "password": "/admin/password_change/",
}
TABS = ("overview", "versions", "traffic", "predictions", "history", "settings")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Give the address of a platform with the demo's models and some calls."""
    with tempfile.TemporaryDirectory(prefix="mlp-pages-") as folder:
        data = Path(folder) / "var"
        with platform(data, MLP_DEMO="1") as address:
            ask_often(address, wait_for_key(data, address))
            yield address


def wait_for_key(data: Path, address: str) -> str:
    kept = data / "demo.key"
    with httpx.Client(timeout=30) as client:
        while not kept.exists():  # the suite's own timeout ends it
            client.get(f"{address}/health/live")
    return kept.read_text(encoding="ascii").strip()


def ask_often(address: str, key: str) -> None:
    """Leave good calls and wrong ones in the record."""
    good = {"instances": [[13.2, 1.8, 2.4, 18.0, 100, 2.8, 3.0, 0.3, 1.9, 5.0, 1.0, 3.1, 900]]}
    wine = f"{address}/api/v1/predict/wine"
    with httpx.Client(headers={"X-API-Key": key}, timeout=30) as client:
        while client.post(wine, json=good).status_code != 200:  # the key is not everywhere yet
            time.sleep(0.3)
        for number in range(40):
            client.post(wine, json={"instances": [["x"]]} if number % 10 == 9 else good)


def paths_of(site: Site) -> Iterator[tuple[str, str]]:
    """Yield every page: the lists, the first thing of each, and what stands alone."""
    yield from OTHERS.items()
    for name, path in LISTS.items():
        yield name, path
        site.go(path)
        link = site.page.locator("tbody tr a").first
        if link.count():
            yield f"{name}-one", str(link.get_attribute("href")).split("?")[0]
    site.go("/admin/registry/registeredmodel/?q=wine")
    model = str(site.page.locator("tbody tr a").first.get_attribute("href")).split("?")[0]
    for tab in TABS:
        yield f"model-{tab}", f"{model}?tab={tab}"
    site.go("/admin/registry/modelversion/?q=wine")
    version = str(site.page.locator("tbody tr a").first.get_attribute("href")).split("?")[0]
    yield "release-dialog", f"{version.removesuffix('change/')}release/"


def keep_picture(page: Page, name: str) -> None:
    if folder := os.environ.get("MLP_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_whole_and_usable(
    url: str, browser: Browser, tmp_path: Path, theme: str, width: int
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if theme == "dark" else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE_MS)
    site = Site(url, tmp_path, context.new_page())
    site.watch()
    found: list[str] = []
    site.go("/admin/login/")
    found += [f"login: {one}" for one in site.hard_to_use()]
    keep_picture(site.page, f"login-{theme}-{width}")
    site.sign_in()
    for name, path in list(paths_of(site)):
        site.go(path)
        site.settle()
        found += [f"{name}: {one}" for one in site.hard_to_use()]
        found += [f"{name}: it is wider than the screen"] if site.is_wide() else []
        keep_picture(site.page, f"{name}-{theme}-{width}")
    context.close()
    assert found == []
    assert site.wrongs == []
