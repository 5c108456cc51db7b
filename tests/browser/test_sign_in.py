"""Signing in as people do it: an app with codes, recovery codes, a passkey, a provider.

The passkey is the browser's own virtual authenticator, which makes and uses real key pairs. Under
``localhost``, since passkeys need a name. With MLP_SCREENSHOTS naming a folder, the pages are kept
there as pictures.
"""

import contextlib
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from playwright.sync_api import Browser, expect

from tests.browser.site import CHROMIUM, PASSWORD, PATIENCE_MS, Site, platform
from tests.browser.test_pages import keep_picture
from tests.fakes.oidc_provider import Provider, running

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed; apt-get install chromium"),
]
SIGNED_IN = "user.signed_in"
VIRTUAL = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@dataclass
class Phone:
    """An app with codes; it never shows the same one twice."""

    secret: str
    shown: int = 0

    def code(self) -> str:
        """Return the present code, or the next one, which is taken a little early."""
        self.shown = max(int(time.time()) // 30, self.shown + 1)
        return format_hotp_value(hotp_value(self.secret, self.shown))


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running() as process:
        yield process


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mlp-sign-in-") as folder:
        yield Path(folder) / "var"


@pytest.fixture(scope="module")
def url(provider: Provider, data: Path) -> Iterator[str]:
    with platform(
        data,
        MLP_OIDC_ISSUER=provider.issuer,
        MLP_OIDC_CLIENT_ID="mlplatform",
        MLP_OIDC_CLIENT_SECRET="s3cret",
        MLP_OIDC_NAME="Example ID",
        MLP_OUTBOUND_ALLOW=provider.place,
    ) as address:
        yield address.replace("127.0.0.1", "localhost")


@pytest.fixture
def site(url: str, browser: Browser, tmp_path: Path) -> Iterator[Site]:
    context = browser.new_context(reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    yield Site(url, tmp_path, page)
    context.close()


def look(site: Site, name: str) -> None:
    """Check a page in both themes, wide and narrow; not loaded again, since some show once."""
    for width in (1440, 390):
        site.page.set_viewport_size({"width": width, "height": 900})
        for theme in ("light", "dark"):
            site.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
            site.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
            assert site.hard_to_use() == [], (name, theme, width)
            assert not site.is_wide(), (name, theme, width)
            keep_picture(site.page, f"sign-in-{name}-{theme}-{width}")
    site.page.set_viewport_size({"width": 1440, "height": 900})


def password_step(site: Site) -> None:
    site.go("/admin/login/")
    site.page.fill("[name=username]", "admin")
    site.page.fill("[name=password]", PASSWORD)
    site.page.keyboard.press("Enter")


def press(site: Site, name: str) -> None:
    site.page.get_by_role("button", name=name, exact=True).click()


def ways_in(data: Path) -> list[dict[str, object]]:
    """Return what the platform wrote of each sign-in, in their order."""
    with contextlib.closing(sqlite3.connect(data / "db.sqlite3")) as kept:
        rows = kept.execute("SELECT facts FROM core_event WHERE verb = ? ORDER BY id", (SIGNED_IN,))
        return [json.loads(facts) for (facts,) in rows]


def sign_out(site: Site) -> None:
    site.page.context.clear_cookies()


def confirm_by_password(site: Site) -> None:
    site.sees("Confirm it is you")
    site.page.fill("[name=password]", PASSWORD)
    press(site, "Confirm")


def test_an_app_and_recovery_codes(site: Site) -> None:
    site.watch()
    site.go("/admin/login/")
    look(site, "front-door")
    site.sign_in()
    site.go("/account/2fa/")
    look(site, "second-factor")
    site.page.get_by_role("link", name="Set up app").click()
    look(site, "confirm")
    confirm_by_password(site)
    site.sees("Scan this")
    look(site, "app")
    phone = Phone(site.page.locator("#secret").inner_text())
    site.page.fill("[name=code]", phone.code())
    press(site, "Set up app")
    site.sees("They are shown only now.")
    look(site, "recovery-codes")
    codes = site.page.locator(".codes li").all_inner_texts()
    assert len(codes) == 10
    site.page.get_by_role("link", name="I have stored them").click()
    site.sees("10 of 10 are unused")

    sign_out(site)
    password_step(site)
    site.sees("Second step")
    look(site, "second-step")
    site.page.fill("[name=code]", "000000")
    press(site, "Sign in")
    site.sees("This is not a code of yours now.")
    site.page.fill("[name=code]", phone.code())
    press(site, "Sign in")
    site.page.wait_for_url(f"{site.url}/admin/")

    sign_out(site)
    password_step(site)
    site.page.fill("[name=code]", codes[0])
    press(site, "Sign in")
    site.page.wait_for_url(f"{site.url}/admin/")
    site.go("/account/2fa/")
    site.sees("9 of 10 are unused")
    site.page.get_by_role("link", name="Remove app").click()
    confirm_by_password(site)
    press(site, "Remove app")
    site.sees("Not set up.")
    assert site.wrongs == []


def test_a_passkey_as_second_step_and_alone(site: Site, data: Path) -> None:
    site.watch()
    cdp = site.page.context.new_cdp_session(site.page)
    cdp.send("WebAuthn.enable")
    cdp.send("WebAuthn.addVirtualAuthenticator", {"options": VIRTUAL})
    site.sign_in()
    site.go("/account/2fa/passkeys/add/")
    confirm_by_password(site)
    site.sees("Sign in with it alone")
    look(site, "add-passkey")
    press(site, "Add passkey")
    site.sees("They are shown only now.")
    site.go("/account/2fa/passkeys/")
    site.sees("Passkey 1")
    look(site, "passkeys")

    sign_out(site)
    password_step(site)
    site.sees("Second step")
    press(site, "Use a passkey")
    site.page.wait_for_url(f"{site.url}/admin/")

    sign_out(site)
    site.go("/admin/login/?next=/admin/accounts/team/")
    press(site, "Sign in with a passkey")
    site.page.wait_for_url(f"{site.url}/admin/accounts/team/")
    assert ways_in(data)[-3:] == [
        {"method": "password", "second_factor": False},
        {"method": "password", "second_factor": True},
        {"method": "passkey", "second_factor": False},
    ]

    site.go("/account/2fa/passkeys/")
    site.page.get_by_role("link", name="Remove").first.click()
    site.sees("Confirm it is you")
    if site.page.locator("[name=password]").count() == 0:
        site.page.get_by_role("link", name="Use the password").click()
    confirm_by_password(site)
    press(site, "Remove passkey")
    site.sees("No passkeys yet.")
    assert site.wrongs == []


def test_a_provider_and_back(site: Site, provider: Provider) -> None:
    provider.knows("a-1", email="admin@example.org", email_verified=True)
    provider.knows("x-1", email="nobody@example.org", email_verified=True)
    site.go("/admin/login/?next=/admin/accounts/team/")
    site.page.get_by_role("link", name="Sign in with Example ID").click()
    site.page.wait_for_url(f"{provider.issuer}/oauth2/authorize*")
    site.page.fill("[name=sub]", "x-1")
    site.page.keyboard.press("Enter")
    site.sees("Nobody here has your email address.")
    look(site, "refused")
    site.page.get_by_role("link", name="Back to sign-in").click()
    site.page.get_by_role("link", name="Sign in with Example ID").click()
    site.page.wait_for_url(f"{provider.issuer}/oauth2/authorize*")
    site.page.fill("[name=sub]", "a-1")
    site.page.keyboard.press("Enter")
    site.page.wait_for_url(f"{site.url}/admin/")
    expect(site.page.get_by_text("Home").first).to_be_visible()
