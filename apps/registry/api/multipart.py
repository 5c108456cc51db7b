"""Multipart bodies as a stream of small happenings, with a limit on everything but the file.

The parser of ``python_multipart`` calls back; here its calls become a list that the door works off
after each piece of the body, so that nothing but the piece at hand is in memory.
"""

from dataclasses import dataclass
from typing import TypeAlias

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from apps.core.errors import FieldProblem, Invalid

FILE = "file"
MAX_FIELDS = 32
MAX_FIELD_BYTES = 64 * 1024
MAX_NAME_BYTES = 200
CUT_OFF = "The body ends in the middle. Send it whole."


@dataclass(frozen=True, slots=True)
class FieldSent:
    """A whole field that is not the file."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class FileBegun:
    """The file's part begins; its name is a stranger's text."""

    filename: str


@dataclass(frozen=True, slots=True)
class FilePiece:
    """Some bytes of the file."""

    data: bytes


Happening: TypeAlias = FieldSent | FileBegun | FilePiece


def boundary_of(content_type: str) -> bytes:
    """Read the boundary from a Content-Type; empty when it is not a multipart form."""
    kind, options = parse_options_header(content_type)
    return options.get(b"boundary", b"") if kind == b"multipart/form-data" else b""


class MultipartReader:
    """Parses one body as it comes in."""

    def __init__(self, boundary: bytes) -> None:
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise Invalid("The boundary in Content-Type is too long.") from error
        self._happened: list[Happening] = []
        self._names: set[str] = set()
        self._headers: dict[str, bytes] = {}
        self._header = (bytearray(), bytearray())
        self._name = ""
        self._value = bytearray()
        self._over = False

    def feed(self, data: bytes) -> list[Happening]:
        """Parse the next bytes of the body; return what they brought.

        Raises:
            Invalid: The body is not a well-formed form, or over a limit.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Invalid(
                "The body is not the multipart form that Content-Type announces."
            ) from error
        happened, self._happened = self._happened, []
        return happened

    def finish(self) -> None:
        """Say that the body is over.

        Raises:
            Invalid: It ended before its closing boundary.
        """
        if not self._over:
            raise Invalid(CUT_OFF)

    def _part_begin(self) -> None:
        self._headers = {}
        self._name = ""
        self._value.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        name, value = self._header
        self._headers[name.decode("latin-1").strip().lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_finished(self) -> None:
        disposition = self._headers.get("content-disposition", b"").decode("latin-1")
        kind, options = parse_options_header(disposition)
        name = options.get(b"name", b"")
        if kind != b"form-data" or not 0 < len(name) <= MAX_NAME_BYTES:
            raise Invalid("A part of the form has no name.")
        encoding = self._headers.get("content-transfer-encoding", b"binary").strip().lower()
        if encoding not in {b"binary", b"8bit", b"7bit"}:
            raise Invalid("Send the parts as they are, without Content-Transfer-Encoding.")
        self._begin(name.decode("utf-8", "replace"), options.get(b"filename"))

    def _begin(self, name: str, filename: bytes | None) -> None:
        if name in self._names:
            raise _wrong(name, f"The field {name[:50]} was sent twice.")
        if len(self._names) >= MAX_FIELDS:
            raise Invalid(f"A form has at most {MAX_FIELDS} fields.")
        if filename is not None and name != FILE:
            raise _wrong(name, "Send the model's file in the field `file`.")
        self._names.add(name)
        self._name = name
        if name == FILE:
            self._happened.append(FileBegun((filename or b"").decode("utf-8", "replace")))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE:
            self._happened.append(FilePiece(data[start:end]))
            return
        self._value.extend(data[start:end])
        if len(self._value) > MAX_FIELD_BYTES:
            raise _wrong(self._name, f"A field has at most {MAX_FIELD_BYTES} bytes.")

    def _part_end(self) -> None:
        if self._name == FILE:
            return
        try:
            value = self._value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _wrong(self._name, "A field is UTF-8 text.") from error
        if "\x00" in value:
            raise _wrong(self._name, "A field holds no NUL.")
        self._happened.append(FieldSent(self._name, value))

    def _end(self) -> None:
        self._over = True


def _wrong(name: str, detail: str) -> Invalid:
    error = Invalid(detail)
    error.at([FieldProblem(f"/{name[:50]}", detail)])
    return error
