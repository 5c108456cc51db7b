"""What a stage found, as the one file it leaves behind; standard library only."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPORT_NAME = "report.json"
MOST_TEXT = 600


class Refused(Exception):
    """The upload cannot be accepted; the message says why and the remedy what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


def clean(text: object, most: int = MOST_TEXT) -> str:
    """Text from a file or a library, made printable and short before a person reads it."""
    words = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * most])
    words = " ".join(words.split())
    return words if len(words) <= most else words[: most - 1] + "…"


@dataclass(slots=True)
class Report:
    """Collects the checks and results of one stage."""

    checks: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] | None = None

    @contextmanager
    def check(self, name: str, title: str) -> Iterator["Noted"]:
        """Time one check and note how it ended; a ``Refused`` inside fails it and goes on up."""
        noted = Noted()
        started = time.perf_counter()
        try:
            yield noted
        except Refused as error:
            noted.fail(error.message, error.remedy)
            raise
        finally:
            if noted.state:
                self._note(name, title, noted, time.perf_counter() - started)

    def warn(self, name: str, title: str, message: str, remedy: str = "") -> None:
        """Note something a person should know that refuses nothing."""
        self._note(name, title, Noted("warning", message, remedy), 0.0)

    def refuse(self, error: Refused) -> None:
        """Make this the reason of the rejection."""
        self.refused = {"reason": clean(error.message), "remedy": clean(error.remedy)}

    def write(self, folder: Path) -> None:
        """Leave the report for the parent."""
        body: Mapping[str, Any] = {
            "checks": self.checks,
            "result": self.result,
            "refused": self.refused,
        }
        (folder / REPORT_NAME).write_text(json.dumps(body, allow_nan=False), encoding="utf-8")

    def _note(self, name: str, title: str, noted: "Noted", seconds: float) -> None:
        self.checks.append(
            {
                "name": name,
                "title": title,
                "state": noted.state,
                "message": clean(noted.message),
                "remedy": clean(noted.remedy),
                "seconds": round(seconds, 4),
            }
        )


@dataclass(slots=True)
class Noted:
    """How one check ended; passed unless something else was said."""

    state: str = "passed"
    message: str = ""
    remedy: str = ""

    def say(self, message: str) -> None:
        """Say what a passed check found."""
        self.message = message

    def warn(self, message: str, remedy: str = "") -> None:
        """Turn the check into a warning."""
        self.state, self.message, self.remedy = "warning", message, remedy

    def skip(self, message: str = "", remedy: str = "") -> None:
        """Note that there was nothing to check."""
        self.state, self.message, self.remedy = "skipped", message, remedy

    def fail(self, message: str, remedy: str = "") -> None:
        """Turn the check into a failure."""
        self.state, self.message, self.remedy = "failed", message, remedy
