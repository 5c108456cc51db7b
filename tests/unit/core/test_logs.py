"""Log lines: JSON, with the request id, without secrets."""

import logging
import sys

import orjson
import pytest

from apps.core import context
from apps.core.logs import ContextFilter, JsonFormatter, RefusalFilter


def line(message: str, **facts: object) -> dict[str, object]:
    record = logging.LogRecord("x", logging.INFO, "f", 1, message, (), None)
    record.facts = facts
    ContextFilter().filter(record)
    parsed: dict[str, object] = orjson.loads(JsonFormatter().format(record))
    return parsed


def test_a_line_carries_the_request_id_and_its_facts() -> None:
    context.begin("r-1", None)
    written = line("hello", status_code=200)
    assert (written["request_id"], written["status_code"], written["level"]) == ("r-1", 200, "INFO")


def test_an_api_key_in_a_message_is_masked() -> None:
    key = "mlp_live_" + "a" * 12 + "_" + "b" * 38
    written = line(f"refused {key}")
    assert "b" * 38 not in str(written)
    assert "mlp_live_aaaaaaaaaaaa_..." in str(written)


@pytest.mark.parametrize(
    ("message", "secret"),
    [
        ("token eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl refused", "c2lnbmF0dXJl"),
        ("POST /register?text=inv_Zm9vYmFyYmF6cXV4", "Zm9vYmFyYmF6cXV4"),
        ("sent Authorization: Basic YWRhOmVuaWdtYQ==", "YWRhOmVuaWdtYQ"),
        ("headers {'authorization': 'Bearer abcdefghijkl'}", "abcdefghijkl"),
        ("Cookie: theme=dark; mlp_refresh=abcdefghijkl", "abcdefghijkl"),
        ("got mlp_refresh=abcdefghijkl back", "abcdefghijkl"),
        ("cannot reach smtp+tls://mailer:hunter22@mail.example:587", "hunter22"),
        ("mail to ada.lovelace@example.org failed", "lovelace"),
    ],
)
def test_credentials_and_addresses_are_masked_wherever_they_stand(
    message: str, secret: str
) -> None:
    assert secret not in str(line(message))
    assert secret not in str(line("x", said=message))


VALUE = "Ada Lovelace"


def failed_with(error: Exception) -> logging.LogRecord:
    """Make the line of an error; its source lines name no value, only variables."""
    try:
        _raise(error)
    except type(error):
        return logging.LogRecord("x", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    raise AssertionError("It was raised.")


def _raise(error: Exception) -> None:
    raise error


def test_a_traceback_names_the_error_and_not_the_value_that_it_quotes() -> None:
    written = JsonFormatter().format(failed_with(ValueError(f"could not convert {VALUE}")))
    assert "Lovelace" not in written
    assert "ValueError" in written
    assert "test_logs.py" in written


def test_the_error_behind_an_error_is_told_in_the_same_way() -> None:
    outer = OSError("disk is full")
    outer.__cause__ = KeyError(VALUE)
    written = JsonFormatter().format(failed_with(outer))
    assert "Lovelace" not in written
    assert written.index("KeyError") < written.index("OSError: disk is full")


def test_where_data_is_not_real_the_texts_may_stay() -> None:
    record = failed_with(ValueError("could not convert 'x'"))
    assert "could not convert 'x'" in JsonFormatter(error_texts=True).format(record)


@pytest.mark.parametrize(
    ("status", "kept"), [(403, False), (404, False), (500, True), (None, True)]
)
def test_a_refusal_is_no_line_of_its_own(status: int | None, kept: bool) -> None:
    record = logging.LogRecord("django.request", logging.WARNING, "f", 1, "x", (), None)
    if status:
        record.status_code = status
    assert RefusalFilter().filter(record) is kept
