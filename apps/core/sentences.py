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
# Lists that left as files: `list.exported` is one that has no verb of its own.
EXPORTS = (
    "model.exported",
    "version.exported",
    "endpoint.exported",
    "release.exported",
    "key.exported",
    "plan.exported",
    "team.exported",
    "user.exported",
    "predictions.exported",
    "traffic.exported",
    "list.exported",
)
# What happens by itself or all the time; the audit page has it, shorter lists leave it out.
QUIET = (
    "version.validating",
    "version.downloaded",
    "release.rolled_out",
    "user.signed_in",
    "user.refreshed",
    "user.signed_out",
    "user.sign_in_failed",
    "predictions.purged",
    "predictions.shipped",
    "audit.exported",
    *EXPORTS,
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
    changed, before, after = facts.get("changes"), facts.get("before"), facts.get("after")
    if isinstance(changed, Mapping):
        told = {"changes", "changed", "was", "before", "after", *changed}
        others = {name: value for name, value in facts.items() if name not in told}
        pairs = [(name, *_pair(pair)) for name, pair in changed.items()] + _flat(others)
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        pairs = [(name, before.get(name), after.get(name)) for name in {**before, **after}]
    else:
        pairs = list(_flat(facts))
    return [(_field(name), _shown(old), _shown(new)) for name, old, new in pairs]


def _pair(value: Any) -> tuple[Any, Any]:
    """Read ``[before, after]``; events are facts, whoever wrote them."""
    if isinstance(value, list) and len(value) == 2:
        return value[0], value[1]
    return None, value


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
        fields = facts.get("changed") or list(facts.get("changes") or facts.get("after") or ())
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


def _exported(name: str, facts: Facts) -> str:
    return f"exported {words.count_words(float(facts.get('rows') or 0))} {facts.get('what', name)}"


def _purged(name: str, facts: Facts) -> str:
    return f"removed {words.count_words(float(facts.get('rows') or 0))} {name} past their time"


def _erased(name: str, facts: Facts) -> str:
    return f"erased {name}: {words.count_words(float(facts.get('rows') or 0))} records"


def _swept(name: str, facts: Facts) -> str:
    rows = sum(int(one) for one in (facts.get("rows") or {}).values())
    return f"removed {words.count_words(float(rows))} records past their time"


def _invited(name: str, facts: Facts) -> str:
    """Say as what; whom is for those who read the audit."""
    return f"invited somebody as {facts['role']}" if facts.get("role") else "invited somebody"


def _locked_out(name: str, facts: Facts) -> str:
    """Name whom it happened to; an address is in the event, its guard's row says nothing."""
    told = "a name or an address" if "failures since" in name else name
    return (
        f"{told} is locked for {facts.get('minutes')} minutes after {facts.get('failures')} "
        "failed sign-ins"
    )


def _factors(did: str, whose: str) -> Say:
    known = {"totp": "an app", "webauthn": "a passkey", "recovery_codes": "recovery codes"}

    def say(name: str, facts: Facts) -> str:
        told = " and ".join(known.get(str(one), str(one)) for one in facts.get("kinds") or ())
        return f"{did} {told or 'a second factor'} {whose} {name}"

    return say


def _token_key(facts: Facts) -> str:
    """Say how far the change of the key that signs tokens is."""
    return {
        "prepared": "published the next key for tokens",
        "switched": "signs tokens with the next key",
        "idle": "took the former key for tokens away",
        "replaced": "replaced the key for tokens at once; all tokens ended",
    }.get(str(facts.get("step")), "changed the key for tokens")


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
    "key.changed": Saying(_changed("the key")),
    "key.rotated": Saying(_of("rotated the key {name}; both work for {overlap_hours} h")),
    "key.unused": Saying(
        _of("nobody used the key {name} for {days} days"), by_actor=False, tone="attention"
    ),
    "plan.created": Saying(_of("made the plan {name}"), tone="good"),
    "plan.changed": Saying(_changed("the plan"), tone="attention"),
    "plan.deleted": Saying(_of("deleted the plan {name}"), tone="bad"),
    "user.plan_changed": Saying(_of("put {name} on the plan {plan}"), tone="attention"),
    "token_key.rotated": Saying(lambda _, facts: _token_key(facts)),
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
    "user.email_changed": Saying(_of("changed the email address of {name}")),
    "user.sign_in_failed": Saying(
        _of("a sign-in as {name} failed"), by_actor=False, tone="attention"
    ),
    "user.locked_out": Saying(_locked_out, by_actor=False, tone="bad"),
    "user.unlocked": Saying(_of("unlocked the sign-in of {name}"), tone="good"),
    "user.throttled": Saying(
        _of("one {by} called {door} more often than {rate}"), by_actor=False, tone="attention"
    ),
    "user.token_reused": Saying(
        _of("a refresh token of {name} was used twice; its sign-in was ended"),
        by_actor=False,
        tone="bad",
    ),
    "user.sessions_ended": Saying(_of("signed {name} out everywhere else"), tone="attention"),
    "invitation.made": Saying(_invited, tone="good"),
    "invitation.revoked": Saying(_of("revoked an invitation"), tone="bad"),
    "invitation.accepted": Saying(_of("accepted an invitation"), tone="good"),
    "user.connected": Saying(_of("connected {name} with {provider}"), tone="attention"),
    "user.password_ended": Saying(_of("ended the password of {name}"), tone="attention"),
    "user.second_factor_added": Saying(_factors("set up", "for"), tone="good"),
    "user.second_factor_removed": Saying(_factors("removed", "of"), tone="attention"),
    "user.recovery_codes_made": Saying(_of("made new recovery codes for {name}")),
    "user.used_recovery_code": Saying(_of("used a recovery code of {name}"), tone="attention"),
    "user.signed_in": Saying(_of("signed in")),
    "user.refreshed": Saying(_of("went on with a sign-in")),
    "user.signed_out": Saying(_of("signed out")),
    "predictions.purged": Saying(_purged),
    "prediction.redacted_read": Saying(_of("read what is kept of redacted fields of {name}")),
    "prediction.unit_searched": Saying(_of("searched the record for a unit")),
    "privacy.erasure_asked": Saying(_of("asked to erase {name}"), tone="attention"),
    "privacy.erased": Saying(_erased, tone="bad"),
    "purge.done": Saying(_swept),
    "audit.verified": Saying(_of("verified the audit chain: {sealed} events hold"), tone="good"),
    "audit.broken": Saying(_of("found the audit chain broken at {broken_at}: {what}"), tone="bad"),
    "audit.alarm": Saying(_of("{what}"), by_actor=False, tone="attention"),
    "audit.restored": Saying(
        _of("told that events {lost_from} to {lost_to} were lost by a restore"), tone="bad"
    ),
    "audit.purged": Saying(_of("removed {rows} audit events past their time")),
    "predictions.shipped": Saying(_of("brought {rows} predictions into the record"), tone="good"),
    "audit.exported": Saying(_of("exported {rows} audit events")),
    **{verb: Saying(_exported) for verb in EXPORTS},
}

# What a verb is about, for the filter of the audit page.
GROUPS: Mapping[str, str] = {
    "release": "Releases",
    "version": "Versions",
    "model": "Models",
    "alias": "Aliases",
    "key": "Keys",
    "plan": "Plans",
    "member": "Members",
    "team": "Teams",
    "user": "People",
    "invitation": "Invitations",
    "predictions": "Predictions",
    "prediction": "Reads of redacted fields",
    "privacy": "Erasures",
    "purge": "Purges",
    "endpoint": "Endpoints",
    "traffic": "Traffic",
    "list": "Other lists",
    "audit": "Audit",
    "token_key": "Keys for tokens",
}
