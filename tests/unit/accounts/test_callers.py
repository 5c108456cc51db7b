"""Who is asking: from headers and a directory, without a database."""

from dataclasses import replace

import pytest

from apps.accounts import keys, tokens
from apps.accounts.callers import Caller, MemoryDirectory, caller_of
from apps.accounts.keys import KeyKind, KeyText
from apps.accounts.snapshot import KeyBody, PersonBody, Role, key_to_json, person_to_json
from apps.accounts.tokens import TokenKind, TokenSigner, TokenVerifier
from apps.core.errors import Invalid, InvalidKey, InvalidToken, NotAuthenticated
from apps.core.snapshot_file import Change, Entry

NOW = 1_800_000_000.0
KEY: KeyText = keys.make(KeyKind.LIVE)
ADA = PersonBody(7, "ada", False, True, 3, {1: Role.MAINTAINER, 2: Role.VIEWER}, ("a.b",))
ADAS_KEY = KeyBody(KEY.id, KEY.sha256, 1, 7, ("predict",), (), ("production",), int(NOW) + 100)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tokens.kept_private_pem(tmp_path_factory.mktemp("keys"))


class Door:
    """One directory and one pair of keys."""

    def __init__(self, pem: str) -> None:
        self.directory = MemoryDirectory({KEY.id: ADAS_KEY}, {7: ADA})
        self.signer = TokenSigner(pem, issuer="us", audience="api")
        self.verifier = TokenVerifier([tokens.public_pem_of(pem)], issuer="us", audience="api")

    def ask(self, headers: dict[str, str], now: float = NOW) -> Caller:
        return caller_of(headers, directory=self.directory, verifier=self.verifier, now=now)

    def token(self, version: int = 3) -> tokens.Token:
        return self.signer.sign(
            TokenKind.ACCESS, user_id=7, token_version=version, seconds=60, now=NOW
        )

    def by_key(self, now: float = NOW) -> Caller:
        return self.ask({"x-api-key": str(KEY)}, now)

    def by_token(self, version: int = 3) -> Caller:
        return self.ask({"authorization": f"Bearer {self.token(version).text}"})


@pytest.fixture
def door(pem: str) -> Door:
    return Door(pem)


def test_whoever_presents_nothing_is_told_how_to(door: Door) -> None:
    with pytest.raises(NotAuthenticated, match="X-API-Key"):
        door.ask({})


def test_two_credentials_at_once_are_refused(door: Door) -> None:
    with pytest.raises(Invalid, match="not both"):
        door.ask({"x-api-key": str(KEY), "authorization": f"Bearer {door.token().text}"})


def test_a_key_is_its_owner_in_the_team_of_the_key_and_nowhere_else(door: Door) -> None:
    caller = door.by_key()
    assert caller.user_id == 7
    assert caller.key == ADAS_KEY
    assert caller.roles == {1: Role.MAINTAINER}
    assert caller.sees(1)
    assert not caller.sees(2)


def test_an_admins_key_sees_its_own_team_only(door: Door) -> None:
    door.directory = replace(door.directory, people={7: replace(ADA, is_admin=True, roles={})})
    caller = door.by_key()
    assert caller.sees(1)
    assert not caller.sees(2)
    assert not caller.sees_all


@pytest.mark.parametrize("text", ["", "x", str(KEY)[:-1] + "!", str(keys.make(KeyKind.LIVE))])
def test_a_bad_or_unknown_key_is_refused(door: Door, text: str) -> None:
    with pytest.raises(InvalidKey, match="not valid"):
        door.ask({"x-api-key": text})


def test_a_mistyped_key_costs_no_look_up(door: Door) -> None:
    class NoDirectory(MemoryDirectory):
        def key(self, key_id: str) -> KeyBody | None:
            raise AssertionError("looked up")

    door.directory = NoDirectory()
    with pytest.raises(InvalidKey):
        door.ask({"x-api-key": str(KEY)[:-1] + ("0" if str(KEY)[-1] != "0" else "1")})


def test_the_right_id_with_another_secret_is_refused(door: Door) -> None:
    forged = replace(keys.make(KeyKind.LIVE), id=KEY.id)
    with pytest.raises(InvalidKey, match="not valid"):
        door.ask({"x-api-key": str(forged)})


def test_a_key_ends_at_its_time(door: Door) -> None:
    door.by_key(NOW + 99)
    with pytest.raises(InvalidKey, match="expired"):
        door.by_key(NOW + 100)


def test_a_disabled_owner_closes_the_key(door: Door) -> None:
    door.directory = replace(door.directory, people={7: replace(ADA, is_active=False)})
    with pytest.raises(InvalidKey, match="disabled"):
        door.by_key()


def test_an_owner_who_left_the_team_closes_the_key(door: Door) -> None:
    door.directory = replace(door.directory, people={7: replace(ADA, roles={2: Role.VIEWER})})
    with pytest.raises(InvalidKey, match="left"):
        door.by_key()


def test_a_key_never_has_more_than_its_owner_has_now(door: Door) -> None:
    door.directory = replace(door.directory, people={7: replace(ADA, roles={1: Role.VIEWER})})
    assert door.by_key().roles == {1: Role.VIEWER}


def test_a_token_is_its_person_with_all_roles(door: Door) -> None:
    caller = door.by_token()
    assert (caller.user_id, caller.key) == (7, None)
    assert caller.roles == ADA.roles
    assert caller.permissions == {"a.b"}


def test_a_token_from_before_a_change_of_standing_is_refused(door: Door) -> None:
    with pytest.raises(InvalidToken, match="Sign in again"):
        door.by_token(version=2)


@pytest.mark.parametrize("people", [{}, {7: replace(ADA, is_active=False)}])
def test_a_token_of_nobody_or_of_a_disabled_user_is_refused(
    door: Door, people: dict[int, PersonBody]
) -> None:
    door.directory = replace(door.directory, people=people)
    with pytest.raises(InvalidToken):
        door.by_token()


def test_a_revoked_token_is_refused(door: Door) -> None:
    made = door.token()
    door.directory = replace(door.directory, revoked=frozenset({made.claims.id}))
    with pytest.raises(InvalidToken):
        door.ask({"authorization": f"Bearer {made.text}"})


@pytest.mark.parametrize("text", ["", "Bearer", "Bearer ", "Basic YTpi", f"Bearer {KEY}", "x"])
def test_any_other_authorization_is_an_invalid_token(door: Door, text: str) -> None:
    with pytest.raises(InvalidToken):
        door.ask({"authorization": text})


# -- the directory in memory --------------------------------------------------------------------

KEY_ENTRY = Entry("key", KEY.id, 1, key_to_json(ADAS_KEY))
ADA_ENTRY = Entry("person", "7", 2, person_to_json(ADA))
TOKEN_ENTRY = Entry("token", "jti", 3, {"expires": 1})


def change(*entries: Entry, full: bool = False) -> Change:
    return Change(full, "e", 9, entries)


def test_the_directory_follows_the_snapshot() -> None:
    full = MemoryDirectory().applied(change(KEY_ENTRY, ADA_ENTRY, TOKEN_ENTRY, full=True))
    assert full == MemoryDirectory({KEY.id: ADAS_KEY}, {7: ADA}, revoked=frozenset({"jti"}))
    fewer = full.applied(change(Entry("key", KEY.id, 4, None), Entry("token", "jti", 5, None)))
    assert fewer == MemoryDirectory({}, {7: ADA}, revoked=frozenset())
    assert full.key(KEY.id) == ADAS_KEY, "a directory in use is never changed"


def test_a_full_change_forgets_what_was_before() -> None:
    before = MemoryDirectory({KEY.id: ADAS_KEY}, {7: ADA}, revoked=frozenset({"x"}))
    assert before.applied(change(full=True)) == MemoryDirectory()


def test_entries_of_others_leave_the_directory_as_it_is() -> None:
    before = MemoryDirectory({KEY.id: ADAS_KEY})
    assert before.applied(change(Entry("endpoint", "1", 4, {}))) is before


def test_an_unreadable_entry_closes_its_credential_and_no_other() -> None:
    before = MemoryDirectory({KEY.id: ADAS_KEY}, {7: ADA})
    after = before.applied(
        change(Entry("key", KEY.id, 4, {"id": KEY.id}), Entry("person", "x", 5, {"id": 1}))
    )
    assert after.key(KEY.id) is None
    assert after.person(7) == ADA


def test_fields_of_a_newer_writer_are_ignored() -> None:
    newer = Entry("key", KEY.id, 4, {**key_to_json(ADAS_KEY), "colour": "gold"})
    person = Entry("person", "7", 5, {**person_to_json(ADA), "zone": "UTC"})
    after = MemoryDirectory().applied(change(newer, person))
    assert (after.key(KEY.id), after.person(7)) == (ADAS_KEY, ADA)
