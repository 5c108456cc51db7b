"""What an event says in words: one table of verbs for home, history, audit and the bell.

A verb is stable for ever and written where the action is; its words are here, so that they may
change. A verb without a row is said plainly, and a test fails.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from apps.core import words
from apps.core.models import Event

Facts = Mapping[str, Any]
Say = Callable[[str, Facts], str]
# What happens by itself or all the time; the audit page has it, shorter lists leave it out.
QUIET = (
    "version.validating",
    "version.downloaded",
    "release.rolled_out",
    "user.signed_in",
    "user.refreshed",
    "user.signed_out",
    "predictions.purged",
)
# What a field shows that is not there, or is empty.
_NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Saying:
    """How a verb is said.

    Attributes:
        say: The thing's name and the event's facts in words: "released wine 4 to production".
        by_actor: The words want who did it before them; else they are a sentence of their own.
        tone: Colour of the point in a timeline.
    """

    say: Say
    by_actor: bool = True
    tone: str = "waiting"


def headline(event: Event) -> str:
    """Say what happened without who did it: *Released wine 4 to production*."""
    return _capital(_saying(event).say(event.target_name, event.facts))


def sentence(event: Event) -> str:
    """Say who did what: *Mara released wine 4 to production, approved by Tom: better F1*."""
    saying = _saying(event)
    said = saying.say(event.target_name, event.facts)
    asker = str(event.facts.get("asked_by") or "")
    reason = str(event.facts.get("asked_because") or "") or event.reason
    if asker:
        said = f"{asker} {said}, approved by {event.actor_name}"
    elif saying.by_actor:
        said = f"{_who(event)} {said}"  # a name is written as its owner writes it
    else:
        said = _capital(said)
    return f"{said}: {reason}" if reason else said


def tone(event: Event) -> str:
    """Return the colour of an event: ``good``, ``bad``, ``working``, ``attention``, ``waiting``."""
    return _saying(event).tone


def group_of(verb: str) -> str:
    """Return what a verb is about: *release* of ``release.live``."""
    return verb.partition(".")[0]


def place_of(event: Event) -> str:
    """Return where the page of an event's thing is, or nothing when it has none."""
    return words.page_of_kind(event.target_kind, event.target_id)


def changes(facts: Facts) -> list[tuple[str, str, str]]:
    """Return rows of field, before, after; what has no before is told as after."""
    before, after = facts.get("before"), facts.get("after")
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        pairs = [(name, before.get(name), after.get(name)) for name in {**before, **after}]
    else:
        pairs = list(_flat(facts))
    return [(_field(name), _shown(old), _shown(new)) for name, old, new in pairs]


def _flat(facts: Facts) -> list[tuple[str, Any, Any]]:
    """Pair what is written beside each other: a former role, version or state."""
    former = {"role": "before", "version": "was"}
    rows: list[tuple[str, Any, Any]] = []
    for name, value in facts.items():
        pair = former.get(name)
        if name in former.values() and any(former.get(one) == name for one in facts):
            continue
        rows.append((name, facts.get(pair) if pair else None, value))
    return rows


def _field(name: str) -> str:
    return _capital(name.replace("_", " "))


def _shown(value: Any) -> str:
    if value in (None, "", [], {}):
        return _NOTHING if value is not None else ""
    if isinstance(value, list):
        return ", ".join(_shown(one) for one in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _saying(event: Event) -> Saying:
    return SAYINGS.get(event.verb) or Saying(_plain(event.verb), by_actor=False)


def _who(event: Event) -> str:
    return "The platform" if event.actor_kind == "system" else event.actor_name


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plain(verb: str) -> Say:
    def say(name: str, facts: Facts) -> str:
        return f"{verb.replace('.', ' ').replace('_', ' ')}: {name}"

    return say


def _of(text: str) -> Say:
    """Fill a sentence with the thing's ``{name}`` and the facts it names."""

    def say(name: str, facts: Facts) -> str:
        return text.format_map(_Gaps({**facts, "name": name}))

    return say


class _Gaps(dict[str, Any]):
    """An event from before a fact was recorded is still told."""

    def __missing__(self, key: str) -> str:
        return "something"


def _arms(facts: Facts) -> str:
    """Say what a release serves: *wine 4*, or *wine 4 (90 %) and wine 5 (10 %)*."""
    model = facts.get("model", "the model")
    arms = [one for one in facts.get("arms") or () if isinstance(one, Mapping)]
    if len(arms) == 1:
        return f"{model} {arms[0].get('version')}"
    told = [f"{model} {one.get('version')} ({_share(one)})" for one in arms]
    return f"{', '.join(told[:-1])} and {told[-1]}" if told else str(model)


def _share(arm: Facts) -> str:
    role = str(arm.get("role", ""))
    return role if role == "shadow" else words.percent_words(float(arm.get("share") or 0))


def _live(name: str, facts: Facts) -> str:
    place = facts.get("environment", "its environment")
    if "rolled_back_to" in facts:
        back = f"release {facts['rolled_back_to']}"
        return f"rolled {facts.get('model', name)} in {place} back to {_arms(facts)} ({back})"
    return f"released {_arms(facts)} to {place}"


def _requested(name: str, facts: Facts) -> str:
    place = facts.get("environment", "its environment")
    return f"asked for approval to release {_arms(facts)} to {place}"


def _refused(name: str, facts: Facts) -> str:
    return f"rejected the release of {_arms(facts)} to {facts.get('environment', name)}"


def _rolled_out(name: str, facts: Facts) -> str:
    place = facts.get("environment", "its environment")
    return f"every worker serves {_arms(facts)} in {place} (release {facts.get('number', '?')})"


def _ready(name: str, facts: Facts) -> str:
    judged = facts.get("was") in (None, "validating", "uploaded")
    return f"found {name} ready" if judged else f"restored {name}"


def _alias(name: str, facts: Facts) -> str:
    moved = f", before at version {facts['was']}" if facts.get("was") else ""
    return f"set alias {facts.get('alias')} of {name} to version {facts.get('version')}{moved}"


def _changed(what: str) -> Say:
    def say(name: str, facts: Facts) -> str:
        fields = facts.get("changed") or list(facts.get("after") or ())
        told = ", ".join(str(one).replace("_", " ") for one in fields)
        return f"changed {told} of {what} {name}" if told else f"saved {what} {name}"

    return say


def _issued(name: str, facts: Facts) -> str:
    scopes = ", ".join(facts.get("scopes") or ())
    return f"made the key {name} for {scopes}" if scopes else f"made the key {name}"


def _joined(name: str, facts: Facts) -> str:
    return f"added {facts.get('username')} to {name} as {facts.get('role')}"


def _role(name: str, facts: Facts) -> str:
    return (
        f"made {facts.get('username')} {facts.get('role')} of {name}"
        f" (was {facts.get('before', 'something else')})"
    )


def _purged(name: str, facts: Facts) -> str:
    return f"removed {words.count_words(float(facts.get('rows') or 0))} {name} past their time"


SAYINGS: Mapping[str, Saying] = {
    "model.created": Saying(_of("made the model {name}"), tone="good"),
    "model.changed": Saying(_changed("the model")),
    "model.deleted": Saying(_of("deleted the model {name}"), tone="bad"),
    "version.uploaded": Saying(_of("uploaded {name}")),
    "version.validating": Saying(_of("began to validate {name}"), tone="working"),
    "version.ready": Saying(_ready, tone="good"),
    "version.rejected": Saying(_of("rejected {name}"), tone="bad"),
    "version.deprecated": Saying(_of("deprecated {name}"), tone="attention"),
    "version.archived": Saying(_of("archived {name}")),
    "version.downloaded": Saying(_of("downloaded the {role} file of {name}")),
    "alias.set": Saying(_alias),
    "alias.removed": Saying(_of("removed alias {alias} of {name}")),
    "release.live": Saying(_live, tone="good"),
    "release.requested": Saying(_requested, tone="working"),
    "release.rejected": Saying(_refused, tone="bad"),
    "release.rolled_out": Saying(_rolled_out, by_actor=False, tone="good"),
    "key.issued": Saying(_issued, tone="good"),
    "key.revoked": Saying(_of("revoked the key {name}"), tone="bad"),
    "team.created": Saying(_of("made the team {name}"), tone="good"),
    "team.renamed": Saying(_of("renamed a team to {name}")),
    "member.added": Saying(_joined, tone="good"),
    "member.role_changed": Saying(_role, tone="attention"),
    "member.removed": Saying(_of("removed {username} from {name}"), tone="bad"),
    "user.created": Saying(_of("made a sign-in for {name}"), tone="good"),
    "user.changed": Saying(_changed("the person")),
    "user.renamed": Saying(_of("changed the name of {name}")),
    "user.password_changed": Saying(_of("changed the password of {name}"), tone="attention"),
    "user.enabled": Saying(_of("let {name} sign in again"), tone="good"),
    "user.disabled": Saying(_of("disabled the sign-in of {name}"), tone="bad"),
    "user.signed_in": Saying(_of("signed in")),
    "user.refreshed": Saying(_of("went on with a sign-in")),
    "user.signed_out": Saying(_of("signed out")),
    "predictions.purged": Saying(_purged),
    "audit.verified": Saying(_of("verified the audit chain: {sealed} events hold"), tone="good"),
    "audit.broken": Saying(_of("found the audit chain broken at {broken_at}: {what}"), tone="bad"),
    "audit.exported": Saying(_of("exported {rows} audit events")),
}

# What a verb is about, for the filter of the audit page.
GROUPS: Mapping[str, str] = {
    "release": "Releases",
    "version": "Versions",
    "model": "Models",
    "alias": "Aliases",
    "key": "Keys",
    "member": "Members",
    "team": "Teams",
    "user": "People",
    "predictions": "Predictions",
    "audit": "Audit",
}
