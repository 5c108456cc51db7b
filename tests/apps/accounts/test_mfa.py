"""The second factor: set up, asked for, good once, encrypted, taken away; no way around it."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value
from django.contrib import admin
from django.db import connections
from django.test import Client
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.services import mfa, people, sessions
from apps.accounts.services.mfa import PasswordNotEnough, SecondFactorWanted
from apps.core.errors import LockedOut, NotAllowed, WrongPassword
from apps.core.models import Event
from apps.registry.api import upload as door
from tests.factories.accounts import PASSWORD, SYSTEM, make_user
from tests.fakes.asgi import call, form, part

pytestmark = pytest.mark.django_db
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
LOGIN = "/api/v1/auth/login"
Type = Authenticator.Type


@pytest.fixture(autouse=True)
def clock() -> Iterator[Any]:
    with time_machine.travel("2026-06-01T00:00:10Z", tick=False) as traveller:
        yield traveller


@pytest.fixture
def mara() -> User:
    user = make_user("mara")
    User.objects.filter(pk=user.pk).update(is_staff=True)
    return User.objects.get(pk=user.pk)


@pytest.fixture
def enrolled(mara: User) -> User:
    TOTP.activate(mara, SECRET)
    RecoveryCodes.activate(mara)
    return mara


def code(secret: str = SECRET, *, steps: int = 0) -> str:
    step = int(timezone.now().timestamp()) // 30 + steps
    return format_hotp_value(hotp_value(secret, step))


def recovery_codes(user: User) -> list[str]:
    row = Authenticator.objects.get(user=user, type=Type.RECOVERY_CODES)
    found: list[str] = row.wrap().get_unused_codes()
    return found


def password_step(name: str = "mara", goal: str = "") -> tuple[Client, Any]:
    browser = Client()
    address = f"/admin/login/?next={goal}" if goal else "/admin/login/"
    return browser, browser.post(address, {"username": name, "password": PASSWORD})


def is_in(browser: Client) -> bool:
    return "_auth_user_id" in browser.session


def confirmed(user: User) -> Client:
    """Return a signed-in browser whose person showed the password again."""
    browser, _ = password_step(user.username)
    reply = browser.post("/account/reauthenticate/", {"password": PASSWORD})
    assert reply.status_code == 302
    return browser


# --- the pages --------------------------------------------------------------------------------


def test_the_password_alone_signs_in_who_has_no_second_factor(mara: User) -> None:
    browser, reply = password_step(goal="/admin/accounts/team/")
    assert (reply.status_code, reply.headers["Location"]) == (302, "/admin/accounts/team/")
    assert is_in(browser)
    facts = Event.objects.get(verb="user.signed_in").facts
    assert (facts["method"], facts["second_factor"]) == ("password", False)


def test_the_email_address_is_a_name_as_well(mara: User) -> None:
    browser, _ = password_step("mara@example.org")
    assert is_in(browser)


def test_a_code_is_asked_for_after_the_password_and_opens_the_page_that_was_wanted(
    enrolled: User,
) -> None:
    browser, reply = password_step(goal="/admin/accounts/team/")
    assert reply.headers["Location"] == "/account/2fa/authenticate/"
    assert not is_in(browser)
    assert browser.get("/admin/").status_code == 302
    reply = browser.post("/account/2fa/authenticate/", {"code": code()})
    assert reply.headers["Location"] == "/admin/accounts/team/"
    assert is_in(browser)
    facts = Event.objects.get(verb="user.signed_in").facts
    assert (facts["method"], facts["second_factor"]) == ("password", True)


def test_a_wrong_code_leaves_the_door_shut_and_five_lock_it(enrolled: User) -> None:
    browser, _ = password_step()
    for _ in range(5):
        reply = browser.post("/account/2fa/authenticate/", {"code": "000000"})
        assert reply.status_code == 200
        assert b"not a code of yours" in reply.content
    reply = browser.post("/account/2fa/authenticate/", {"code": code()})
    assert b"Too many" in reply.content
    assert not is_in(browser)
    failed = Event.objects.filter(verb="user.sign_in_failed", target_id=str(enrolled.pk))
    assert [one.facts["method"] for one in failed] == ["code"] * 5
    assert Event.objects.filter(verb="user.locked_out").exists()
    with pytest.raises(LockedOut):
        sessions.sign_in("mara", PASSWORD, code())


def test_a_code_cannot_be_sent_without_the_password_step(enrolled: User) -> None:
    browser = Client()
    reply = browser.post("/account/2fa/authenticate/", {"code": code()})
    assert reply.headers["Location"] == "/account/login/"
    assert not is_in(browser)


def test_setting_up_an_app_wants_the_password_again_and_shows_codes_once(mara: User) -> None:
    browser, _ = password_step()
    reply = browser.get("/account/2fa/app/")
    assert reply.headers["Location"].startswith("/account/reauthenticate/")
    assert b"is-wrong" not in browser.post("/account/reauthenticate/", {"password": "x"}).content
    browser.post("/account/reauthenticate/", {"password": PASSWORD})
    page = browser.get("/account/2fa/app/").content.decode()
    assert 'src="data:image/svg+xml;base64,' in page
    found = re.search(r'id="secret">([A-Z2-7]+)<', page)
    assert found is not None
    wrong = browser.post("/account/2fa/app/", {"code": "000000"})
    assert wrong.status_code == 200
    assert not mfa.has_second_factor(mara)
    reply = browser.post("/account/2fa/app/", {"code": code(found[1])})
    assert reply.headers["Location"] == "/account/2fa/codes/"
    shown = re.findall(r"<li>(\d{10})</li>", browser.get("/account/2fa/codes/").content.decode())
    assert len(shown) == 10
    assert shown == recovery_codes(mara)
    again = browser.get("/account/2fa/codes/").content.decode()
    assert not re.findall(r"\d{10}", again)
    verbs = Event.objects.filter(target_id=str(mara.pk)).values_list("verb", flat=True)
    assert {"user.second_factor_added", "user.recovery_codes_made"} <= set(verbs)


def test_taking_it_away_wants_proof_and_is_an_event(enrolled: User) -> None:
    browser, _ = password_step()
    browser.post("/account/2fa/authenticate/", {"code": code()})
    reply = browser.post("/account/2fa/app/remove/")
    assert "reauthenticate" in reply.headers["Location"]
    assert mfa.has_second_factor(enrolled)
    browser.post("/account/2fa/reauthenticate/", {"code": code(steps=1)})
    browser.post("/account/2fa/app/remove/")
    assert not Authenticator.objects.exists()
    removed = Event.objects.get(verb="user.second_factor_removed")
    assert (removed.actor_name, removed.facts["kinds"]) == ("mara", ["totp"])


def test_new_recovery_codes_end_the_old_ones(enrolled: User) -> None:
    old = recovery_codes(enrolled)
    browser, _ = password_step()
    browser.post("/account/2fa/authenticate/", {"code": code()})
    browser.post("/account/reauthenticate/", {"password": PASSWORD})
    browser.post("/account/2fa/codes/new/")
    assert not set(old) & set(recovery_codes(enrolled))
    with pytest.raises(WrongPassword):
        mfa.use_code(enrolled, old[0])


def test_switched_off_it_is_neither_offered_nor_asked_for(enrolled: User, settings: Any) -> None:
    settings.MFA = "off"
    browser, _ = password_step()
    assert is_in(browser)
    assert browser.get("/account/2fa/").status_code == 404
    assert b"passkey" not in Client().get("/admin/login/").content
    sessions.sign_in("mara", PASSWORD)


def test_required_it_leads_to_the_setup_and_nowhere_else(mara: User, settings: Any) -> None:
    settings.MFA = "required"
    browser = confirmed(mara)
    for path in ("/admin/", "/admin/accounts/team/", "/docs"):
        assert browser.get(path).headers["Location"] == "/account/2fa/", path
    assert browser.get("/api/v1/auth/me").status_code == 403
    assert b"A second factor is required here" in browser.get("/account/2fa/").content
    TOTP.activate(mara, SECRET)
    assert browser.get("/admin/").status_code == 200


def test_required_the_upload_door_is_shut_as_well(mara: User, settings: Any) -> None:
    settings.MFA = "required"
    browser, _ = password_step()
    cookies = f"sessionid={browser.cookies['sessionid'].value}; csrftoken={'a' * 32}"
    sent = {"cookie": cookies, "x-csrftoken": "a" * 32}
    file = form(part("name", "wine"), part("file", b"x", "w.onnx"))
    reply = call(door.upload, "/api/v1/models/upload", file, headers=sent)
    assert (reply.status, reply.json()["code"]) == (403, "not_allowed")
    assert "second factor" in reply.json()["detail"]


def test_an_inactive_person_and_one_without_pages_stay_outside(mara: User) -> None:
    User.objects.filter(pk=mara.pk).update(is_staff=False)
    browser, reply = password_step()
    assert reply.status_code == 200
    assert not is_in(browser)


def test_the_way_back_leads_to_pages_of_this_host_only(enrolled: User) -> None:
    browser, _ = password_step(goal="https://evil.example/")
    reply = browser.post("/account/2fa/authenticate/", {"code": code()})
    assert reply.headers["Location"] == "/admin/"


def test_the_pages_run_under_the_strict_policy_without_a_script_of_their_own(mara: User) -> None:
    browser = confirmed(mara)
    for path in ("/account/2fa/", "/account/2fa/app/", "/account/2fa/passkeys/add/"):
        reply = browser.get(path)
        assert "unsafe" not in reply.headers["Content-Security-Policy"]
        page = reply.content.decode()
        for tag in re.findall(r"<script[^>]*>", page):
            assert " src=" in tag or 'type="application/json"' in tag, tag
        assert " style=" not in page


def test_the_librarys_screens_are_not_in_the_admin() -> None:
    assert not [one for one in admin.site._registry if one.__module__.startswith("allauth")]


# --- one use, no way around -------------------------------------------------------------------


def test_the_password_api_asks_for_the_code(enrolled: User) -> None:
    body = {"username": "mara", "password": PASSWORD}
    reply = Client().post(LOGIN, body, content_type="application/json")
    assert (reply.status_code, reply.json()["code"]) == (401, "mfa_required")
    reply = Client().post(LOGIN, {**body, "code": code()}, content_type="application/json")
    assert reply.status_code == 200
    assert Event.objects.get(verb="user.signed_in").facts["second_factor"] is True


def test_a_wrong_password_tells_nothing_of_a_second_factor(enrolled: User) -> None:
    body = {"username": "mara", "password": "wrong"}
    reply = Client().post(LOGIN, body, content_type="application/json")
    assert reply.json()["code"] == "wrong_password"


def test_a_code_is_good_once_and_none_before_it_is_good_after(enrolled: User, clock: Any) -> None:
    mfa.use_code(enrolled, code())
    with pytest.raises(WrongPassword):
        mfa.use_code(enrolled, code())
    with pytest.raises(WrongPassword):
        mfa.use_code(enrolled, code(steps=-1))
    clock.shift(timedelta(seconds=30))
    mfa.use_code(enrolled, code())


@pytest.mark.parametrize(("steps", "is_good"), [(-2, False), (-1, True), (1, True), (2, False)])
def test_a_clock_may_be_off_by_one_step(enrolled: User, steps: int, is_good: bool) -> None:
    if is_good:
        assert mfa.use_code(enrolled, code(steps=steps)).type == Type.TOTP
    else:
        with pytest.raises(WrongPassword):
            mfa.use_code(enrolled, code(steps=steps))


def test_a_recovery_code_is_good_once_and_is_an_event(enrolled: User) -> None:
    one = recovery_codes(enrolled)[0]
    assert mfa.use_code(enrolled, f" {one[:5]}-{one[5:]} ").type == Type.RECOVERY_CODES
    assert Event.objects.filter(verb="user.used_recovery_code").count() == 1
    with pytest.raises(WrongPassword):
        mfa.use_code(enrolled, one)
    assert one not in recovery_codes(enrolled)


def test_a_person_with_a_passkey_only_is_told_what_to_do(mara: User) -> None:
    Authenticator.objects.create(user=mara, type=Type.WEBAUTHN, data={"name": "x"})
    with pytest.raises(PasswordNotEnough, match="passkey"):
        sessions.sign_in("mara", PASSWORD)


def test_required_the_password_api_is_shut_until_one_is_set_up(mara: User, settings: Any) -> None:
    settings.MFA = "required"
    with pytest.raises(PasswordNotEnough, match="set one up"):
        sessions.sign_in("mara", PASSWORD)
    TOTP.activate(mara, SECRET)
    with pytest.raises(SecondFactorWanted):
        sessions.sign_in("mara", PASSWORD)
    sessions.sign_in("mara", PASSWORD, code())


def test_required_a_sign_in_from_before_goes_on_only_with_one(mara: User, settings: Any) -> None:
    pair = sessions.sign_in("mara", PASSWORD)
    settings.MFA = "required"
    with pytest.raises(NotAllowed, match="second factor"):
        sessions.refresh(pair.refresh)
    TOTP.activate(mara, SECRET)
    sessions.refresh(pair.refresh)


def test_the_pages_go_on_without_the_cache(mara: User, settings: Any) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:9/0",
        }
    }
    assert confirmed(mara).get("/account/2fa/app/").status_code == 200


def test_passkeys_are_asked_for_as_often_as_passwords(settings: Any) -> None:
    settings.THROTTLE_LOGIN = "2/m"
    address = "/account/2fa/passkeys/login/"
    browser = Client(REMOTE_ADDR="192.0.2.44")
    told = [browser.post(address, {"credential": "{}"}).status_code for _ in range(3)]
    assert 429 not in told[:2]
    assert told[2] == 429


def test_a_sign_in_that_began_with_the_old_password_does_not_end_in_one(enrolled: User) -> None:
    browser, _ = password_step()
    people.set_password(enrolled, "another-long-password", actor=SYSTEM)
    reply = browser.post("/account/2fa/authenticate/", {"code": code()})
    assert reply.status_code == 403
    assert b"password was changed meanwhile" in reply.content
    assert not is_in(browser)


# --- secrets at rest --------------------------------------------------------------------------


def test_the_table_holds_no_secret_in_clear(enrolled: User) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT data FROM mfa_authenticator")
        kept = str(cursor.fetchall())
    assert SECRET not in kept
    assert all(one not in kept for one in recovery_codes(enrolled))


def test_the_former_key_opens_them_until_they_are_renewed(enrolled: User, settings: Any) -> None:
    former = settings.SECRET_KEY
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the-next-key", [former]
    mfa.use_code(enrolled, code())
    assert mfa.reseal_all() == 2
    settings.SECRET_KEY_FALLBACKS = []
    mfa.use_code(enrolled, code(steps=1))
    assert len(recovery_codes(enrolled)) == 10


def test_a_lost_key_is_said_in_words(enrolled: User, settings: Any) -> None:
    settings.SECRET_KEY = "another-key"
    with pytest.raises(PasswordNotEnough, match="not here any more"):
        mfa.use_code(enrolled, code())


# --- a platform admin takes them away ---------------------------------------------------------


def test_a_platform_admin_removes_all_factors_and_ends_every_session(enrolled: User) -> None:
    browser, _ = password_step()
    browser.post("/account/2fa/authenticate/", {"code": code()})
    assert is_in(browser)
    version = enrolled.token_version
    root = Client()
    root.force_login(make_user("root", is_admin=True))
    path = f"/admin/accounts/user/{enrolled.pk}/remove-factors/"
    root.post(path, {"_form_submitted": "True", "reason": "lost the phone, I saw her"})
    assert not Authenticator.objects.exists()
    assert browser.get("/admin/").status_code == 302
    enrolled.refresh_from_db()
    assert enrolled.token_version > version
    removed = Event.objects.get(verb="user.second_factor_removed")
    assert (removed.actor_name, removed.reason) == ("root", "lost the phone, I saw her")
    assert removed.facts["kinds"] == ["recovery_codes", "totp"]


def test_nobody_else_removes_anybodys_factors(enrolled: User) -> None:
    tom = make_user("tom")
    User.objects.filter(pk=tom.pk).update(is_staff=True)
    browser = Client()
    browser.force_login(tom)
    path = f"/admin/accounts/user/{enrolled.pk}/remove-factors/"
    reply = browser.post(path, {"_form_submitted": "True", "reason": "mine now"})
    assert reply.status_code == 403
    assert mfa.has_second_factor(enrolled)


def test_removing_nothing_is_no_event(mara: User) -> None:
    assert mfa.remove_all(mara, actor=SYSTEM, reason="x") == 0
    assert not Event.objects.filter(verb="user.second_factor_removed").exists()
