"""The key that signs tokens is changed without ending one, and at once when it must be."""

import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from apps.accounts.selectors import token_signer, token_verifier
from apps.accounts.services import token_keys
from apps.accounts.services.token_keys import KeysElsewhere, Step
from apps.accounts.tokens import TokenKind, public_pem_of, public_pems_in
from apps.core.errors import InvalidToken
from apps.core.models import Event
from tests.factories.accounts import SYSTEM

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path
    settings.JWT_PRIVATE_KEY = settings.JWT_PUBLIC_KEY = ""
    return tmp_path / "keys"


def token() -> str:
    signer = token_signer()
    return signer.sign(
        TokenKind.REFRESH, user_id=1, token_version=1, seconds=7 * 86400, now=time.time()
    ).text


def is_good(text: str) -> bool:
    try:
        token_verifier().read(text, kind=TokenKind.REFRESH, now=time.time())
    except InvalidToken:
        return False
    return True


def step(after: float = 0.0) -> Step:
    return token_keys.advance(time.time() + after, actor=SYSTEM).step


def later() -> float:
    return 8 * 86400.0


def test_tokens_of_both_keys_are_good_from_before_the_switch_to_the_end_of_their_lives() -> None:
    old = token()
    assert step() is Step.PREPARED
    before_switch = token()
    assert is_good(old)
    assert is_good(before_switch)
    assert step(after=61) is Step.SWITCHED
    new = token()
    assert [is_good(one) for one in (old, before_switch, new)] == [True, True, True]
    assert step(after=later()) is Step.IDLE
    assert [is_good(one) for one in (old, before_switch, new)] == [False, False, True]


def test_a_verifier_knows_the_next_key_before_anything_is_signed_with_it(folder: Path) -> None:
    step()
    next_public = public_pem_of((folder / "jwt.next.pem").read_text()).strip()
    assert next_public in {
        one.strip() for one in public_pems_in((folder / "jwt.pub.pem").read_text())
    }


def test_a_step_is_not_made_before_its_time() -> None:
    old = token()
    step()
    assert step(after=5) is Step.PREPARED
    step(after=61)
    assert step(after=3600) is Step.SWITCHED, "refresh tokens of the former key still live"
    assert is_good(old)


def test_a_preparation_that_was_cut_off_publishes_before_it_switches(folder: Path) -> None:
    old = token()
    single = (folder / "jwt.pub.pem").read_text() if (folder / "jwt.pub.pem").exists() else None
    step()
    # As if the process had died after making the next key and before publishing it.
    (folder / "jwt.pub.pem").write_text(single or public_pem_of((folder / "jwt.pem").read_text()))
    assert step(after=61) is Step.PREPARED
    assert len(public_pems_in((folder / "jwt.pub.pem").read_text())) == 2
    assert is_good(old)


def test_a_key_that_a_stranger_knows_is_out_of_use_at_once(folder: Path) -> None:
    old = token()
    step()
    token_keys.replace_at_once(actor=SYSTEM)
    assert not is_good(old)
    assert is_good(token())
    assert not (folder / "jwt.next.pem").exists()
    assert token_keys.standing(time.time()).step is Step.IDLE


def test_every_kept_file_is_for_its_user_alone(folder: Path) -> None:
    step()
    step(after=61)
    step(after=later())
    assert {oct(one.stat().st_mode & 0o777) for one in folder.iterdir()} == {"0o600"}
    assert {one.name for one in folder.iterdir()} == {"jwt.pem", "jwt.pub.pem"}


def test_each_step_is_in_the_audit_and_none_tells_the_key() -> None:
    step()
    step(after=61)
    step(after=later())
    written = Event.objects.filter(verb="token_key.rotated").order_by("id")
    assert [one.facts["step"] for one in written] == ["prepared", "switched", "idle"]
    assert "PRIVATE" not in str([one.facts for one in written])


def test_a_key_of_the_environment_is_not_changed_here(settings: Any) -> None:
    settings.JWT_PUBLIC_KEY = "x"
    with pytest.raises(KeysElsewhere, match="docs/operations"):
        token_keys.advance(time.time(), actor=SYSTEM)


def test_the_command_says_what_it_did_and_what_comes_next() -> None:
    def said(*words: str) -> str:
        out = StringIO()
        call_command("rotate_jwt_key", *words, stdout=out)
        return out.getvalue()

    assert "one key is in use" in said("--status")
    assert "Done: the next key is published" in said()
    assert "in 60 seconds" in said()
    assert "refused everywhere" in said("--compromised")
