"""Single sign-on against a running provider: PKCE, state, nonce, whom it lets in and whom not."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.test import Client

from apps.accounts.models import User
from apps.accounts.services import people, single_sign_on
from apps.accounts.services.single_sign_on import Visitor, free_name, uid_of
from apps.accounts.snapshot import PERSON
from apps.accounts.sso.provider import _visitor
from apps.core.models import Event, SnapshotEntry
from tests.factories.accounts import PASSWORD, SYSTEM, make_user
from tests.fakes.oidc_provider import Provider, running

pytestmark = pytest.mark.django_db
MARA = {"email": "mara@example.org", "email_verified": True, "preferred_username": "mara@corp"}


@pytest.fixture(scope="module")
def process() -> Iterator[Provider]:
    with running() as provider:
        yield provider


@pytest.fixture
def provider(process: Provider, settings: Any) -> Provider:
    settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID = process.issuer, "mlplatform"
    settings.OIDC_CLIENT_SECRET, settings.OIDC_NAME = "s3cret", "Example ID"
    settings.OUTBOUND_ALLOW = frozenset({process.place})
    process.lie()
    return process


@pytest.fixture
def mara() -> User:
    return staff("mara")


def staff(name: str, **more: Any) -> User:
    user = make_user(name, **more)
    User.objects.filter(pk=user.pk).update(is_staff=True)
    return User.objects.get(pk=user.pk)


def begin(browser: Client, goal: str = "/admin/") -> str:
    reply = browser.get("/account/sso/", {"next": goal})
    assert reply.status_code == 302, reply.content
    return str(reply.headers["Location"])


def local(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.path}?{parts.query}"


def sign_in(provider: Provider, sub: str, browser: Client | None = None) -> Any:
    browser = browser or Client()
    return browser.get(local(provider.consents(begin(browser), sub)))


def is_in(browser: Client) -> bool:
    return "_auth_user_id" in browser.session


def test_a_person_known_by_a_verified_address_comes_in_and_is_connected_once(
    provider: Provider, mara: User
) -> None:
    provider.knows("m-1", **MARA)
    browser = Client()
    reply = sign_in(provider, "m-1", browser)
    assert (reply.status_code, reply.headers["Location"]) == (302, "/admin/")
    assert browser.session["_auth_user_id"] == str(mara.pk)
    assert Client().get("/admin/").status_code == 302
    assert sign_in(provider, "m-1").status_code == 302
    assert [(one.user_id, one.extra_data) for one in SocialAccount.objects.all()] == [(mara.pk, {})]
    signed = Event.objects.filter(verb="user.signed_in").first()
    assert signed is not None
    assert (signed.facts["method"], signed.facts["second_factor"]) == ("oidc", False)
    assert Event.objects.filter(verb="user.connected", target_id=str(mara.pk)).count() == 1


def test_the_subject_counts_from_then_on_and_no_longer_the_address(
    provider: Provider, mara: User
) -> None:
    provider.knows("m-1", **MARA)
    sign_in(provider, "m-1")
    provider.knows("m-1", email="married@example.org", email_verified=False)
    browser = Client()
    sign_in(provider, "m-1", browser)
    assert browser.session["_auth_user_id"] == str(mara.pk)
    provider.knows("thief", email="married@example.org", email_verified=True)
    other = Client()
    assert sign_in(provider, "thief", other).status_code == 403
    assert not is_in(other)


def test_the_challenge_is_on_the_wire_and_another_verifier_is_refused(
    provider: Provider, mara: User
) -> None:
    provider.knows("m-1", **MARA)
    browser = Client()
    asked = parse_qs(urlsplit(begin(browser)).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert len(asked["code_challenge"][0]) == 43
    assert len(asked["nonce"][0]) >= 32
    assert asked["redirect_uri"] == ["http://testserver/account/sso/callback/"]
    sign_in(provider, "m-1", browser)
    exchange = provider.asked()[-1]
    assert exchange["door"] == "token"
    assert exchange["code_verifier"]

    thief = Client()
    back = provider.consents(begin(thief), "m-1")
    session = thief.session
    states = session["socialaccount_states"]
    (name,) = states
    states[name][0]["pkce_code_verifier"] = "another"
    session["socialaccount_states"] = states
    session.save()
    assert thief.get(local(back)).status_code == 401
    assert not is_in(thief)


def test_a_state_of_another_browser_or_used_twice_is_refused(
    provider: Provider, mara: User
) -> None:
    provider.knows("m-1", **MARA)
    browser = Client()
    back = local(provider.consents(begin(browser), "m-1"))
    assert Client().get(back).status_code == 401
    assert browser.get(back).status_code == 302
    browser.logout()
    assert browser.get(back).status_code == 401
    assert not is_in(browser)


def test_a_nonce_of_another_question_is_refused(provider: Provider, mara: User) -> None:
    provider.knows("m-1", **MARA)
    browser = Client()
    back = provider.consents(begin(browser), "m-1")
    session = browser.session
    (name,) = session["socialaccount_states"]
    session["socialaccount_states"][name][0]["nonce"] = "another"
    session.save()
    assert browser.get(local(back)).status_code == 403
    assert not is_in(browser)


def test_two_answers_about_two_people_are_refused(provider: Provider, mara: User) -> None:
    provider.knows("m-2", email="eve@example.org", email_verified=True)
    provider.lie(sub="m-1", email="mara@example.org", email_verified=True)
    browser = Client()
    assert sign_in(provider, "m-2", browser).status_code == 401
    assert not is_in(browser)


def test_an_answer_that_the_providers_key_did_not_sign_is_refused(
    provider: Provider, mara: User
) -> None:
    provider.knows("m-1", **MARA)
    provider.lie(forged=True)
    browser = Client()
    assert sign_in(provider, "m-1", browser).status_code == 401
    assert not is_in(browser)


@pytest.mark.parametrize("verified", [False, None, "true"])
def test_an_address_that_the_provider_has_not_verified_opens_nothing(
    provider: Provider, mara: User, settings: Any, verified: Any
) -> None:
    settings.OIDC_CREATE = True
    provider.knows("m-3", email="mara@example.org", email_verified=verified)
    browser = Client()
    reply = sign_in(provider, "m-3", browser)
    assert reply.status_code == 403
    assert b"Verify it there" in reply.content
    assert not is_in(browser)
    assert not SocialAccount.objects.exists()


def test_nobody_is_made_unless_the_operator_wants_it(provider: Provider) -> None:
    provider.knows("n-1", email="new@example.org", email_verified=True)
    assert b"Nobody here has your email address" in sign_in(provider, "n-1").content
    assert not User.objects.exists()


def test_a_newcomer_is_made_by_the_service_without_password_team_or_pages(
    provider: Provider, settings: Any
) -> None:
    settings.OIDC_CREATE = True
    provider.knows(
        "n-1", email="new@example.org", email_verified=True, preferred_username="new person@corp"
    )
    browser = Client()
    reply = sign_in(provider, "n-1", browser)
    assert reply.status_code == 403
    assert b"not open to you yet" in reply.content
    assert not is_in(browser)
    made = User.objects.get()
    assert (made.username, made.email, made.plan_id) == ("newperson", "new@example.org", "standard")
    assert not made.has_usable_password()
    assert not made.is_staff
    assert not made.teams.exists()
    assert SnapshotEntry.objects.filter(kind=PERSON, key=str(made.pk)).exists()
    assert Event.objects.get(verb="user.created").facts["how"] == "sso"

    User.objects.update(is_staff=True)
    assert sign_in(provider, "n-1", browser).status_code == 302
    assert is_in(browser)


def test_a_disabled_person_is_refused_known_or_not(provider: Provider, mara: User) -> None:
    provider.knows("m-1", **MARA)
    people.set_active(mara, active=False, actor=SYSTEM)
    assert sign_in(provider, "m-1").status_code == 403
    people.set_active(mara, active=True, actor=SYSTEM)
    assert sign_in(provider, "m-1").status_code == 302
    people.set_active(mara, active=False, actor=SYSTEM)
    browser = Client()
    assert b"disabled" in sign_in(provider, "m-1", browser).content
    assert not is_in(browser)
    assert Event.objects.filter(verb="user.sign_in_failed", facts__method="oidc").count() == 1


def test_who_wrote_anothers_address_loses_the_password_when_the_owner_comes(
    provider: Provider,
) -> None:
    squatter = people.create_user(
        username="squatter",
        email="mara@example.org",
        password=PASSWORD,
        actor=SYSTEM,
        profile=people.Profile(uses_pages=True, how="registered"),
    )
    before = squatter.token_version
    provider.knows("m-1", **MARA)
    assert sign_in(provider, "m-1").status_code == 302
    squatter.refresh_from_db()
    assert not squatter.has_usable_password()
    assert squatter.token_version > before
    assert Event.objects.filter(verb="user.password_ended").exists()


def squats(how: str = "registered") -> User:
    return people.create_user(
        username="squatter",
        email="mara@example.org",
        password=PASSWORD,
        actor=SYSTEM,
        profile=people.Profile(uses_pages=True, how=how),
    )


def test_who_wrote_anothers_address_keeps_no_factor_and_no_connection_of_the_own(
    provider: Provider,
) -> None:
    squatter = squats()
    Authenticator.objects.create(user=squatter, type=Authenticator.Type.WEBAUTHN, data={})
    SocialAccount.objects.create(user=squatter, provider="sso", uid="the squatter's own")
    provider.knows("m-1", **MARA)
    browser = Client()
    assert sign_in(provider, "m-1", browser).status_code == 302
    assert is_in(browser)
    assert not Authenticator.objects.filter(user=squatter).exists()
    assert SocialAccount.objects.get().uid == uid_of(provider.issuer, "m-1")


def test_who_came_by_an_invitation_has_not_proven_the_address(provider: Provider) -> None:
    squatter = squats("invited")
    provider.knows("m-1", **MARA)
    sign_in(provider, "m-1")
    squatter.refresh_from_db()
    assert not squatter.has_usable_password()


def test_an_account_whose_making_is_purged_is_vouched_for_by_nobody(
    monkeypatch: pytest.MonkeyPatch, mara: User
) -> None:
    assert single_sign_on._is_vouched_for(mara)
    monkeypatch.setattr(Event, "objects", Event.objects.none())
    assert not single_sign_on._is_vouched_for(mara)


@pytest.mark.parametrize("address", ["mara", "mar\u0430@example.org", "\u017fam@example.org"])
def test_a_name_or_a_look_alike_of_an_address_finds_nobody(address: str) -> None:
    make_user("mara")
    make_user("sam")
    with pytest.raises(single_sign_on.SignInRefused):
        single_sign_on.person_for(Visitor("https://id.example", "1", address, is_verified=True))


def test_an_answer_vouches_for_the_address_that_it_names_and_for_no_other() -> None:
    claims = {"sub": "1", "email": "eve@example.org", "email_verified": True}
    assert _visitor(claims, {"sub": "1"}).is_verified
    assert not _visitor(claims, {"sub": "1", "email": "mara@example.org"}).is_verified
    doubted = {"sub": "1", "email": "eve@example.org", "email_verified": False}
    assert not _visitor(claims, doubted).is_verified


def test_a_password_that_an_operator_gave_stays(provider: Provider, mara: User) -> None:
    provider.knows("m-1", **MARA)
    sign_in(provider, "m-1")
    mara.refresh_from_db()
    assert mara.has_usable_password()


def test_where_it_is_required_only_platform_admins_come_in_by_password(
    provider: Provider, mara: User, settings: Any
) -> None:
    settings.OIDC_REQUIRED = True
    provider.knows("m-1", **MARA)
    browser = Client()
    reply = browser.post("/admin/login/", {"username": "mara", "password": PASSWORD})
    assert reply.status_code == 403
    assert b"Everybody signs in with Example ID" in reply.content
    assert not is_in(browser)
    make_user("root", is_admin=True)
    glass = Client()
    glass.post("/admin/login/", {"username": "root", "password": PASSWORD})
    assert is_in(glass)
    assert sign_in(provider, "m-1").status_code == 302


def test_the_sign_in_leads_to_pages_of_this_host_only(provider: Provider, mara: User) -> None:
    provider.knows("m-1", **MARA)
    browser = Client()
    goal = "/admin/accounts/team/"
    reply = browser.get(local(provider.consents(begin(browser, goal), "m-1")))
    assert reply.headers["Location"] == goal
    other = Client()
    reply = other.get(local(provider.consents(begin(other, "https://evil.example/"), "m-1")))
    assert reply.headers["Location"] == "/admin/"


def test_nothing_of_the_question_is_the_browsers_to_say(provider: Provider, mara: User) -> None:
    browser = Client()
    browser.force_login(mara)
    wish = {"process": "connect", "scope": "admin", "auth_params": "nonce=mine"}
    asked = parse_qs(urlsplit(browser.get("/account/sso/", wish).headers["Location"]).query)
    assert set(asked["scope"][0].split()) == {"openid", "profile", "email"}
    assert asked["nonce"] != ["mine"]
    state = next(iter(browser.session["socialaccount_states"].values()))[0]
    assert state["process"] == "login"


def test_a_provider_in_the_own_network_needs_the_operators_word(
    provider: Provider, settings: Any
) -> None:
    settings.OUTBOUND_ALLOW = frozenset()
    reply = Client().get("/account/sso/")
    assert reply.status_code == 502
    assert b"does not answer" in reply.content


def test_a_provider_that_names_itself_otherwise_is_refused(
    provider: Provider, mara: User, settings: Any
) -> None:
    provider.knows("m-1", **MARA)
    settings.OIDC_ISSUER = provider.issuer + "/.well-known/openid-configuration"
    assert sign_in(provider, "m-1").status_code == 401


def test_without_a_provider_there_is_no_such_door(settings: Any) -> None:
    settings.OIDC_ISSUER = ""
    assert Client().get("/account/sso/").status_code == 404
    assert Client().get("/account/sso/callback/?state=x&code=y").status_code == 404
    assert b"Sign in with Single" not in Client().get("/admin/login/").content


def test_the_same_subject_of_two_issuers_is_two_people() -> None:
    assert uid_of("https://a.example", "1") != uid_of("https://b.example", "1")


def test_nobody_signs_up_by_the_librarys_own_pages() -> None:
    for path in ("signup/", "3rdparty/", "3rdparty/signup/", "password/reset/", "email/"):
        assert Client().get(f"/account/{path}").status_code == 404, path


def test_a_name_from_a_provider_keeps_our_rule_and_is_free() -> None:
    make_user("mara")
    assert free_name("mara@corp.example") == "mara2"
    assert free_name("Ada Lovelace") == "AdaLovelace"
    assert free_name("@") == "person"
