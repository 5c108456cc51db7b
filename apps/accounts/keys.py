"""The format of API keys: ``mlp_<live|test>_<id: 12>_<secret: 32><crc: 6>``; plain Python.

All parts are base62. The prefix lets scanners find a leaked key, the checksum refuses a mistyped
one without a look-up. Only the digest of the secret is kept: 190 random bits need no slow hash.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from enum import StrEnum

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH = 12
SECRET_LENGTH = 32
CHECKSUM_LENGTH = 6
# Published for secret scanners; it finds every key and little else.
SCANNER_REGEX = r"\bmlp_(?:live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}\b"

_FORM = re.compile(r"mlp_(live|test)_([0-9A-Za-z]{12})_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")


class KeyKind(StrEnum):
    """A `test` key never reaches production."""

    LIVE = "live"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class KeyText:
    """The parts of a well-formed key. ``repr`` keeps the secret to itself."""

    kind: KeyKind
    id: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyText({self.prefix}_...)"

    def __str__(self) -> str:
        head = f"{self.prefix}_{self.secret}"
        return head + checksum(head)

    @property
    def prefix(self) -> str:
        """The part that may be shown: everything but the secret."""
        return f"mlp_{self.kind}_{self.id}"

    @property
    def sha256(self) -> str:
        """Digest of the secret, hex: what is kept of it."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    @property
    def last4(self) -> str:
        """The last characters of the whole key, by which its holder recognises it."""
        return str(self)[-4:]

    def matches(self, sha256: str) -> bool:
        """Whether the secret is the one whose digest was kept, compared in constant time."""
        return hmac.compare_digest(self.sha256, sha256)


def make(kind: KeyKind) -> KeyText:
    """Make a new random key."""
    return KeyText(kind, _random(ID_LENGTH), _random(SECRET_LENGTH))


def parse(text: str) -> KeyText | None:
    """Take a key apart; None when its form or its checksum is wrong."""
    found = _FORM.fullmatch(text)
    if found is None or checksum(text[:-CHECKSUM_LENGTH]) != found[4]:
        return None
    return KeyText(KeyKind(found[1]), found[2], found[3])


def checksum(text: str) -> str:
    """CRC32 of a text as 6 base62 characters."""
    left = zlib.crc32(text.encode())
    digits = ""
    for _ in range(CHECKSUM_LENGTH):
        left, digit = divmod(left, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
