"""Log lines: JSON, with the request id, without secrets."""

import logging

import orjson

from apps.core import context
from apps.core.logs import ContextFilter, JsonFormatter


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
