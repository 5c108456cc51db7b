"""Image files before they are decoded: base64, kind, and whether they are simple enough.

A decoder does work that its file asks for, so a file is looked over first, in time bounded by its
length: what it is by its first bytes, and that it has no more parts than an honest one. JPEG may
ask to go over the whole image again with every scan; PNG and JPEG may hold a million empty parts.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from apps.registry.image_spec import JPEG, PNG, ImageSpec

MAX_IMAGE_BYTES = 10 * 1024**2
# Chunks of a PNG file, and segments of a JPEG file before its first scan.
MOST_PARTS = 10_000
# An ordinary progressive file has ten.
MOST_SCANS = 32
MOST_FILL = 64
# Pillow joins the pieces of EXIF one by one, and copies all of them each time.
MOST_EXIF = 16

_MAGIC = {b"\x89PNG\r\n\x1a\n": PNG, b"\xff\xd8\xff": JPEG}
_OTHERS = {
    b"GIF8": "a GIF image",
    b"BM": "a BMP image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"%PDF": "a PDF document",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML document",
}
_SOS, _SIZE_BYTES, _EXIF = 0xDA, 2, b"Exif\x00\x00"
_MARKER = re.compile(rb"\xff{1,%d}([^\x00\xff])" % MOST_FILL, re.DOTALL)
# Markers that have no length: restarts, start and end of an image.
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})
_FIELDS = frozenset({"b64", "content_type"})
_DAMAGED = "ends too early or is damaged. Save the image again, or send all of it."


class WrongImage(Exception):
    """What was sent is not an image that can be taken.

    Attributes:
        detail: Sentence whose subject, the input, is put in front by whoever knows it.
        step: JSON pointer from the sent value to the wrong place.
    """

    def __init__(self, detail: str, step: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.step = step


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that was sent, and what its sender says it is."""

    content: bytes
    claimed: str | None = None


def is_sent_as_image(value: object) -> bool:
    """Whether a JSON value is an object that carries a file."""
    return type(value) is dict and "b64" in value


def file_from(value: object) -> ImageFile:
    """Read ``{"b64": "...", "content_type": "image/png"}``; the second field may be left out.

    Raises:
        WrongImage: It is not that, or the file is too large.
    """
    if not isinstance(value, Mapping) or "b64" not in value:
        raise WrongImage('wants an image as {"b64": "..."}, like the others in this call.')
    if unknown := sorted(value.keys() - _FIELDS):
        raise WrongImage(
            "is an image with a field that means nothing; the fields are b64 and content_type.",
            "/" + unknown[0][:80].replace("~", "~0").replace("/", "~1"),
        )
    claimed = value.get("content_type")
    if claimed is not None and not isinstance(claimed, str):
        raise WrongImage("wants its content_type as a text, as image/png.", "/content_type")
    return ImageFile(_decoded(value["b64"]), claimed)


def kind_of(file: ImageFile, spec: ImageSpec) -> str:
    """Say what a file is by its first bytes.

    Raises:
        WrongImage: The input does not take such files, or it is not what its sender says.
    """
    if not file.content:
        raise WrongImage("is an empty file.", "/b64")
    taken = " or ".join(spec.content_types)
    kind = next((kind for magic, kind in _MAGIC.items() if file.content.startswith(magic)), None)
    if kind is None:
        raise WrongImage(f"is {_other(file.content)}; the model takes {taken}.", "/b64")
    if kind not in spec.content_types:
        raise WrongImage(f"is {kind}; the model takes {taken}.", "/b64")
    if file.claimed is not None and file.claimed.strip().lower() != kind:
        raise WrongImage(
            f"is said to be {file.claimed[:40]!r} and is {kind}. Correct or leave out the type.",
            "/content_type",
        )
    return kind


def require_simple(content: bytes, kind: str) -> None:
    """Refuse a file whose parts are out of order or more than an honest file has.

    Raises:
        WrongImage: It is damaged, or would keep a decoder busy for long.
    """
    if kind == PNG:
        _require_simple_png(content)
    else:
        _require_simple_jpeg(content)


def damaged() -> WrongImage:
    """Return the error for a file that does not hold together."""
    return WrongImage(_DAMAGED, "/b64")


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise WrongImage("wants its file in `b64` as a text.", "/b64")
    most = MAX_IMAGE_BYTES >> 20
    too_large = WrongImage(f"is larger than {most} MB. Send a smaller image.", "/b64")
    if len(text) > (MAX_IMAGE_BYTES + 2) // 3 * 4:
        raise too_large
    wrong = WrongImage(
        "is not base64. Send the file's bytes in standard base64 (RFC 4648), without line breaks "
        "and without a `data:` prefix.",
        "/b64",
    )
    if len(text) % 4:  # the strict mode of Python lets one padding too many pass
        raise wrong
    try:
        content = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise wrong from error
    if len(content) > MAX_IMAGE_BYTES:
        raise too_large
    return content


def encoded(content: bytes, kind: str) -> dict[str, str]:
    """Return a file as a request carries it."""
    return {"b64": base64.b64encode(content).decode("ascii"), "content_type": kind}


def _other(content: bytes) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "a WebP image"
    if content[4:8] == b"ftyp":
        return "a HEIF or AVIF image, or a video"
    head = content[:64].lstrip()
    return next((words for magic, words in _OTHERS.items() if head.startswith(magic)), "no image")


def _require_simple_png(content: bytes) -> None:
    if content[12:16] != b"IHDR":
        raise damaged()
    at = 8
    for _ in range(MOST_PARTS):
        if at + 12 > len(content):
            raise damaged()
        if content[at + 4 : at + 8] == b"IEND":
            return
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    raise WrongImage(f"has more than {MOST_PARTS} parts. Save the image again.", "/b64")


def _require_simple_jpeg(content: bytes) -> None:
    at, pieces = 2, 0
    for _ in range(MOST_PARTS):
        marker = _MARKER.match(content, at)
        if marker is None or marker[1][0] in _BARE:
            raise damaged()
        if marker[1][0] == _SOS:
            break
        size = int.from_bytes(content[marker.end() : marker.end() + _SIZE_BYTES], "big")
        if size < _SIZE_BYTES:
            raise damaged()
        pieces += content.startswith(_EXIF, marker.end() + _SIZE_BYTES)
        at = marker.end() + size
    else:
        raise WrongImage(f"has more than {MOST_PARTS} parts. Save the image again.", "/b64")
    if pieces > MOST_EXIF:
        raise WrongImage(
            f"has more than {MOST_EXIF} pieces of EXIF. Save the image again without it.", "/b64"
        )
    if content.count(b"\xff\xda", at) > MOST_SCANS:
        raise WrongImage(
            f"is a progressive JPEG of more than {MOST_SCANS} scans. Save it as a baseline JPEG.",
            "/b64",
        )
