"""What events say: each verb of the code has its words."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.core import sentences
from apps.core.models import Event
from apps.registry.states import VersionState

APPS = Path(__file__).resolve().parents[3] / "apps"
RECORDERS = {"record", "_record", "_announce"}


def event(verb: str, name: str = "wine 4", *, reason: str = "", **facts: Any) -> Event:
    return Event(
        verb=verb,
        actor_kind="user",
        actor_name="Mara",
        target_kind="registry.release",
        target_id="7",
        target_name=name,
        reason=reason,
        facts=facts,
    )


def written_verbs() -> Iterator[str]:
    """Every text of the form ``thing.past`` that stands in a call that records an event."""
    for path in APPS.rglob("*.py"):
        source = path.read_text()
        if "events.record(" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                thing, dot, past = node.value.partition(".")
                if dot and thing in sentences.GROUPS and past.replace("_", "").isalpha():
                    yield node.value
    yield from (f"version.{state.value}" for state in VersionState)


def test_every_verb_in_the_code_has_its_words() -> None:
    found = set(written_verbs())
    assert {"release.live", "key.issued", "member.role_changed", "user.disabled"} <= found
    assert found - set(sentences.SAYINGS) == set()


def test_every_verb_of_the_table_belongs_to_a_group() -> None:
    assert {sentences.group_of(verb) for verb in sentences.SAYINGS} <= set(sentences.GROUPS)


@pytest.mark.parametrize("verb", sorted(sentences.SAYINGS))
def test_a_verb_is_said_even_when_its_facts_are_gone(verb: str) -> None:
    said = sentences.sentence(event(verb))
    assert said[0].isupper()
    assert "_" not in said
    assert verb not in said


ONE = [{"version": 4, "role": "primary", "share": 1.0}]
TWO = [
    {"version": 4, "role": "primary", "share": 0.9},
    {"version": 5, "role": "candidate", "share": 0.1},
]


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (
            event("release.live", model="wine", environment="production", arms=ONE, reason="why"),
            "Mara released wine 4 to production: why",
        ),
        (
            event("release.live", model="wine", environment="staging", arms=TWO),
            "Mara released wine 4 (90 %) and wine 5 (10 %) to staging",
        ),
        (
            event("release.live", model="wine", environment="staging", arms=ONE, rolled_back_to=2),
            "Mara rolled wine in staging back to wine 4 (release 2)",
        ),
        (
            event(
                "member.role_changed", "Blue", username="tom", role="viewer", before="maintainer"
            ),
            "Mara made tom viewer of Blue (was maintainer)",
        ),
        (event("version.ready", was="archived"), "Mara restored wine 4"),
        (event("no.such_verb"), "No such verb: wine 4"),
    ],
)
def test_an_event_is_told_as_a_sentence(one: Event, said: str) -> None:
    assert sentences.sentence(one) == said


def test_an_approved_release_names_both_who_asked_and_who_approved() -> None:
    one = event(
        "release.live",
        model="wine",
        environment="production",
        arms=ONE,
        reason="looks right",
        asked_by="Ada",
        asked_because="better F1",
    )
    said = sentences.sentence(one)
    assert said == "Ada released wine 4 to production, approved by Mara: better F1"
    assert sentences.headline(one) == "Released wine 4 to production"


def test_what_changed_is_told_before_and_after() -> None:
    rows = sentences.changes({"before": {"cache_seconds": 0}, "after": {"cache_seconds": 30}})
    assert rows == [("Cache seconds", "0", "30")]
    rows = sentences.changes({"username": "tom", "role": "viewer", "before": "maintainer"})
    assert ("Role", "maintainer", "viewer") in rows
    assert ("Before", "", "maintainer") not in rows
