"""What one model of the demo is, before and without any training."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("wine", "diabetes", "digits", "tumour", "progression")


@dataclass(frozen=True, slots=True)
class Trained:
    """A model file and what is known about it."""

    name: str
    filename: str
    content: bytes
    description: str
    metrics: Mapping[str, float]
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    lineage: Mapping[str, Any]
    example: Mapping[str, Any]
    signature: Mapping[str, Any] | None = None


def examples() -> dict[str, Mapping[str, Any]]:
    """Return a question for each model, read without training anything."""
    text = (Path(__file__).parent / "examples.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
