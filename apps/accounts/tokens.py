"""JSON web tokens: ES256 only, signed by one key, verified by one or two; plain Python.

A serving process verifies with public keys alone and can sign nothing. While keys are rotated two
public keys are known; ``kid``, the thumbprint of RFC 7638, says which one a token was signed with.
Time comes as an argument, so that a caller's clock decides and tests need no waiting.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from apps.core import ids
from apps.core.errors import InvalidToken

ALGORITHM = "ES256"
LEEWAY_SECONDS = 60
_CLAIMS = ("iss", "aud", "sub", "tv", "jti", "typ", "iat", "exp")
_PEM_BLOCK = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
_BAD = "The token is not valid. Sign in again."


class TokenKind(StrEnum):
    """An access token opens doors; a refresh token only makes new tokens."""

    ACCESS = "access"
    REFRESH = "refresh"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says.

    Attributes:
        token_version: The holder's number at the time of signing; another number now means that
            password, role or standing changed since.
        id: Unique name of this token (``jti``).
        expires: Unix second after which it is refused.
    """

    user_id: int
    token_version: int
    id: str
    kind: TokenKind
    expires: int


@dataclass(frozen=True, slots=True)
class Token:
    """A signed token and what it says."""

    text: str
    claims: Claims

    def __repr__(self) -> str:
        return f"Token({self.claims.kind}, {self.claims.id})"


class TokenVerifier:
    """Reads tokens with public keys alone."""

    def __init__(self, public_keys: Iterable[str], *, issuer: str, audience: str) -> None:
        self.issuer = issuer
        self.audience = audience
        self._keys = {thumbprint(key): key for key in map(_public_key, public_keys)}
        if not self._keys:
            raise ValueError("A verifier needs at least one public key.")

    def read(self, text: str, *, kind: TokenKind, now: float) -> Claims:
        """Return what a token says.

        Raises:
            InvalidToken: It is not ours, altered, of the other kind, or out of its time.
        """
        try:
            key = self._keys[jwt.get_unverified_header(text)["kid"]]
            raw = jwt.decode(
                text,
                key,
                algorithms=[ALGORITHM],
                issuer=self.issuer,
                audience=self.audience,
                # Time is judged below, by the caller's clock.
                options={
                    "require": list(_CLAIMS),
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
            claims = _claims(raw)
        except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
            raise InvalidToken(_BAD) from error
        _judge(claims, raw, kind, now)
        return claims


class TokenSigner:
    """Makes tokens with the private key."""

    def __init__(self, private_pem: str, *, issuer: str, audience: str) -> None:
        key = serialization.load_pem_private_key(private_pem.encode(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ValueError("The token key must be an EC key on the curve P-256 (for ES256).")
        self._key = key
        self._kid = thumbprint(key.public_key())
        self._issuer = issuer
        self._audience = audience

    def sign(
        self, kind: TokenKind, *, user_id: int, token_version: int, seconds: int, now: float
    ) -> Token:
        """Make a token that holds for some seconds."""
        claims = Claims(user_id, token_version, ids.new_id(), kind, int(now) + seconds)
        body = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "tv": token_version,
            "jti": claims.id,
            "typ": kind.value,
            "iat": int(now),
            "exp": claims.expires,
        }
        text = jwt.encode(body, self._key, algorithm=ALGORITHM, headers={"kid": self._kid})
        return Token(text, claims)


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the key's name by RFC 7638: base64url SHA-256 of its canonical JWK."""
    point = key.public_numbers()
    jwk = {
        "crv": "P-256",
        "kty": "EC",
        "x": _base64url(point.x.to_bytes(32, "big")),
        "y": _base64url(point.y.to_bytes(32, "big")),
    }
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def public_pem_of(private_pem: str) -> str:
    """Return the public half of a private key, PEM."""
    key = serialization.load_pem_private_key(private_pem.encode(), password=None)
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def public_pems_in(text: str) -> tuple[str, ...]:
    """Take apart a setting that holds one public key, or two while keys are rotated."""
    return tuple(_PEM_BLOCK.findall(text))


def kept_private_pem(folder: Path) -> str:
    """Return the installation's own signing key, made on first use; only its user can read it.

    The public half lies beside it (``jwt.pub.pem``), for processes that only verify.
    """
    path = folder / "jwt.pem"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _keep(path, new_private_pem())
    return path.read_text()


def kept_public_pem(folder: Path) -> str:
    """Return the public half of the installation's own key, made on first use."""
    path = folder / "jwt.pub.pem"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    _keep(path, public_pem_of(kept_private_pem(folder)))
    return path.read_text()


def keys_stamp(folder: Path) -> tuple[int, ...]:
    """Return what differs as soon as a kept key was changed, for whoever remembers them."""
    stamp: list[int] = []
    for name in ("jwt.pem", "jwt.pub.pem"):
        with contextlib.suppress(OSError):  # a process that only verifies may not see both
            found = (folder / name).stat()
            stamp += (found.st_ino, found.st_mtime_ns)
    return tuple(stamp)


def _keep(path: Path, text: str) -> None:
    """Write a whole file or nothing; of two makers the first one wins."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(text)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def new_private_pem() -> str:
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


def _public_key(pem: str) -> ec.EllipticCurvePublicKey:
    key = serialization.load_pem_public_key(pem.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ValueError("A token's public key must be an EC key on the curve P-256 (for ES256).")
    return key


def _claims(raw: Mapping[str, Any]) -> Claims:
    return Claims(
        user_id=int(raw["sub"]),
        token_version=int(raw["tv"]),
        id=str(raw["jti"]),
        kind=TokenKind(raw["typ"]),
        expires=int(raw["exp"]),
    )


def _judge(claims: Claims, raw: Mapping[str, Any], kind: TokenKind, now: float) -> None:
    if claims.kind is not kind:
        raise InvalidToken(f"This is a token of kind `{claims.kind}`; `{kind}` is wanted here.")
    if now > claims.expires + LEEWAY_SECONDS:
        raise InvalidToken("The token has expired. Refresh it, or sign in again.")
    if int(raw["iat"]) > now + LEEWAY_SECONDS:
        raise InvalidToken(_BAD)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
