"""Tokens: what is taken, and all that is refused."""

import stat
from pathlib import Path

import jwt
import pytest

from apps.accounts import tokens
from apps.accounts.tokens import Token, TokenKind, TokenSigner, TokenVerifier
from apps.core.errors import InvalidToken

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tokens.kept_private_pem(tmp_path_factory.mktemp("keys"))


def signer(pem: str, *, issuer: str = "us", audience: str = "api") -> TokenSigner:
    return TokenSigner(pem, issuer=issuer, audience=audience)


def verifier(*pems: str) -> TokenVerifier:
    return TokenVerifier([tokens.public_pem_of(one) for one in pems], issuer="us", audience="api")


def sign(one: TokenSigner, kind: TokenKind = TokenKind.ACCESS) -> Token:
    return one.sign(kind, user_id=7, token_version=3, seconds=60, now=NOW)


def test_a_signed_token_says_what_was_signed(pem: str) -> None:
    made = sign(signer(pem))
    assert verifier(pem).read(made.text, kind=TokenKind.ACCESS, now=NOW) == made.claims
    assert (made.claims.user_id, made.claims.token_version) == (7, 3)
    assert made.claims.expires == NOW + 60


def test_a_refresh_token_opens_no_door(pem: str) -> None:
    made = sign(signer(pem), TokenKind.REFRESH)
    with pytest.raises(InvalidToken, match="`access` is wanted"):
        verifier(pem).read(made.text, kind=TokenKind.ACCESS, now=NOW)


@pytest.mark.parametrize(("later", "taken"), [(0, True), (119, True), (121, False)])
def test_a_token_ends_after_its_time_and_a_minute_of_leeway(
    pem: str, later: int, taken: bool
) -> None:
    made = sign(signer(pem))
    if taken:
        verifier(pem).read(made.text, kind=TokenKind.ACCESS, now=NOW + later)
    else:
        with pytest.raises(InvalidToken, match="expired"):
            verifier(pem).read(made.text, kind=TokenKind.ACCESS, now=NOW + later)


def test_a_token_from_the_future_is_refused(pem: str) -> None:
    with pytest.raises(InvalidToken):
        verifier(pem).read(sign(signer(pem)).text, kind=TokenKind.ACCESS, now=NOW - 61)


def test_another_key_issuer_or_audience_is_refused(pem: str, tmp_path: Path) -> None:
    strangers = [
        signer(tokens.kept_private_pem(tmp_path)),
        signer(pem, issuer="them"),
        signer(pem, audience="elsewhere"),
    ]
    for stranger in strangers:
        with pytest.raises(InvalidToken):
            verifier(pem).read(sign(stranger).text, kind=TokenKind.ACCESS, now=NOW)


def _body(made: Token) -> dict[str, object]:
    return jwt.decode(made.text, options={"verify_signature": False})


def _head(made: Token) -> dict[str, str]:
    return {"kid": jwt.get_unverified_header(made.text)["kid"]}


def test_no_other_algorithm_is_taken(pem: str) -> None:
    made = sign(signer(pem))
    forged = [
        jwt.encode(_body(made), "", algorithm="none", headers=_head(made)),
        jwt.encode(_body(made), "x" * 64, algorithm="HS256", headers=_head(made)),
    ]
    for text in forged:
        with pytest.raises(InvalidToken):
            verifier(pem).read(text, kind=TokenKind.ACCESS, now=NOW)


@pytest.mark.parametrize("missing", ["iss", "aud", "sub", "tv", "jti", "typ", "iat", "exp"])
def test_a_token_without_one_of_its_claims_is_refused(pem: str, missing: str) -> None:
    made = sign(signer(pem))
    body = {name: value for name, value in _body(made).items() if name != missing}
    text = jwt.encode(body, pem, algorithm="ES256", headers=_head(made))
    with pytest.raises(InvalidToken):
        verifier(pem).read(text, kind=TokenKind.ACCESS, now=NOW)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "....", "ü.ü.ü"])
def test_what_is_no_token_is_refused(pem: str, text: str) -> None:
    with pytest.raises(InvalidToken):
        verifier(pem).read(text, kind=TokenKind.ACCESS, now=NOW)


def test_an_altered_token_is_refused(pem: str) -> None:
    head, body, signature = sign(signer(pem)).text.split(".")
    other = sign(signer(pem)).text.split(".")[1]
    assert body != other
    with pytest.raises(InvalidToken):
        verifier(pem).read(f"{head}.{other}.{signature}", kind=TokenKind.ACCESS, now=NOW)


def test_tokens_of_the_old_and_the_new_key_are_taken_while_keys_are_rotated(
    pem: str, tmp_path: Path
) -> None:
    newer = tokens.kept_private_pem(tmp_path)
    both = verifier(pem, newer)
    for one in (pem, newer):
        both.read(sign(signer(one)).text, kind=TokenKind.ACCESS, now=NOW)


def test_one_setting_may_hold_two_public_keys(pem: str, tmp_path: Path) -> None:
    newer = tokens.kept_private_pem(tmp_path)
    text = tokens.public_pem_of(pem) + "\n" + tokens.public_pem_of(newer)
    assert len(tokens.public_pems_in(text)) == 2


def test_the_kept_key_is_made_once_and_only_its_user_reads_it(tmp_path: Path) -> None:
    first = tokens.kept_private_pem(tmp_path)
    assert tokens.kept_private_pem(tmp_path) == first
    assert tokens.kept_public_pem(tmp_path) == tokens.public_pem_of(first)
    for name in ("jwt.pem", "jwt.pub.pem"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert len(list(tmp_path.iterdir())) == 2


def test_the_name_of_a_key_is_the_published_thumbprint() -> None:
    # The EC key of RFC 7515, appendix A.3; its thumbprint by the rule of RFC 7638.
    private = jwt.PyJWK(
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }
    )
    assert tokens.thumbprint(private.key) == "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"


def test_a_key_of_another_curve_is_refused_with_a_sentence() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(ValueError, match="P-256"):
        signer(pem.decode())
