"""Who must know of an event, and in which words: ``RULES`` is the whole of it.

A rule reads what it needs and returns news for people; it writes nothing. Whatever it returns,
``news_of`` keeps only those who may sign in and still see the team, so that no rule can tell a
stranger. Words come from strangers, too: each is made one printable line.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Q
from django.urls import reverse

from apps.accounts.callers import Caller
from apps.accounts.models import ApiKey, Membership, User
from apps.accounts.policies import Action, Thing, may
from apps.accounts.snapshot import Role
from apps.core.models import Event
from apps.core.words import page_of_kind
from apps.monitoring.models import Notification
from apps.registry.models import ModelVersion, Release
from apps.registry.states import ReleaseState, VersionState

Kind = Notification.Kind
MOST_TITLE = 300
MOST_BODY = 2000


@dataclass(frozen=True, slots=True)
class News:
    """One piece of news for one person.

    Attributes:
        title: For the person: *You are now maintainer in Blue*.
        told: The title for everybody else, as a channel reads it; empty when it is the same.
        url: Path of the page where one acts.
    """

    person_id: int
    kind: Kind
    title: str
    body: str
    url: str
    told: str = ""


Rule = Callable[[Event], Iterable[News]]


def news_of(event: Event) -> list[News]:
    """Return what an event means to whom; at most one piece for each person."""
    rule = RULES.get(event.verb)
    if rule is None:
        return []
    wanted = {one.person_id: one for one in rule(event)}
    seeing = who_may_know(event, wanted)
    return [_tidy(one) for person, one in wanted.items() if person in seeing]


def one_line(text: object, most: int) -> str:
    """Make a stranger's text one printable line; nothing in it can begin a header."""
    shown = "".join(sign if sign.isprintable() else " " for sign in str(text))
    line = " ".join(shown.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _tidy(news: News) -> News:
    return News(
        news.person_id,
        news.kind,
        one_line(news.title, MOST_TITLE),
        one_line(news.body, MOST_BODY),
        news.url,
        one_line(news.told, MOST_TITLE),
    )


def who_may_know(event: Event, people: Iterable[int]) -> set[int]:
    """Keep who sees the event's team, and the person whom the event is about."""
    wanted = set(people)
    about = {one for one in wanted if _is_about(event, one)}
    active = User.objects.filter(pk__in=about, is_active=True).values_list("pk", flat=True)
    return who_see(event.team_id, wanted) | (set(active) if about else set())


def _is_about(event: Event, person: int) -> bool:
    return event.target_kind == User._meta.label_lower and event.target_id == str(person)


def who_see(team_id: int | None, people: Iterable[int]) -> set[int]:
    """Keep who may sign in and belongs to the team, or runs the platform."""
    seen = Q(is_superuser=True)
    if team_id is not None:
        seen |= Q(memberships__team_id=team_id)
    rows = User.objects.filter(seen, pk__in=list(people), is_active=True)
    return set(rows.values_list("pk", flat=True))


# -- the rules ---------------------------------------------------------------------------------


def _approval_wanted(event: Event) -> Iterator[News]:
    """Tell all who may approve, except who asked; nobody when it was decided meanwhile."""
    release = _release(event)
    if release is None or release.state != ReleaseState.AWAITING_APPROVAL:
        return
    where = f"{release.endpoint.model.name} to {release.endpoint.environment}"
    asked = f"{_who(event)} asks for release {release.number}: {_arms(event)}."
    for person in _approvers(release):
        yield News(
            person,
            Kind.APPROVAL_WANTED,
            f"Approval wanted: {where}",
            f"{asked} Reason: {event.reason or 'none given'}",
            _page(event),
        )


def _approvers(release: Release) -> list[int]:
    """Return the team's own who may approve; platform admins only where the team has nobody."""
    model, environment = release.endpoint.model, release.endpoint.environment
    thing = Thing(model.team_id, model.name, environment)
    roles = dict(Membership.objects.filter(team_id=model.team_id).values_list("user_id", "role"))
    people = User.objects.filter(Q(pk__in=roles) | Q(is_superuser=True), is_active=True)
    found = []
    for user in people.order_by("pk"):
        if user.pk == release.requested_by_id:
            continue
        mine = {model.team_id: Role(roles[user.pk])} if user.pk in roles else {}
        caller = Caller(user.pk, user.username, user.is_superuser, mine, frozenset())
        if may(caller, Action.RELEASE_APPROVE, thing):
            found.append(user.pk)
    return [one for one in found if one in roles] or found


def _version_ready(event: Event) -> Iterator[News]:
    """Tell the uploader that validation ended well; coming back from the archive is no news."""
    if event.facts.get("was") != VersionState.VALIDATING:
        return
    for version in _version(event):
        yield News(
            version.uploaded_by_id or 0,
            Kind.VERSION_READY,
            f"{version} is ready",
            "It passed validation. Try it, then release it.",
            _page(event),
        )


def _version_rejected(event: Event) -> Iterator[News]:
    for version in _version(event):
        yield News(
            version.uploaded_by_id or 0,
            Kind.VERSION_REJECTED,
            f"{version} was rejected",
            event.reason or "Its page says what to correct.",
            _page(event),
        )


def _release_live(event: Event) -> Iterator[News]:
    """Tell whose wish was granted by another, and whose release was rolled back."""
    release = _release(event)
    if release is None:
        return
    if release.rolled_back_to_id is not None:
        yield from _rolled_back(event, release)
    elif _other_decided(release):
        where = f"{release.endpoint.model.name} in {release.endpoint.environment}"
        yield News(
            release.requested_by_id or 0,
            Kind.RELEASE_LIVE,
            f"Release {release.number} is live: {where}",
            _decision(event, "approved it"),
            _page(event),
        )


def _rolled_back(event: Event, release: Release) -> Iterator[News]:
    replaced = Release.objects.filter(
        endpoint_id=release.endpoint_id, number=event.facts.get("replaces")
    ).first()
    if replaced is None or replaced.requested_by_id == release.requested_by_id:
        return
    where = f"{release.endpoint.model.name} in {release.endpoint.environment}"
    yield News(
        replaced.requested_by_id or 0,
        Kind.ROLLED_BACK,
        f"Rolled back: {where}",
        _decision(event, f"replaced release {replaced.number} of {replaced.actor_name}"),
        _page(event),
    )


def _release_rejected(event: Event) -> Iterator[News]:
    release = _release(event)
    if release is None or not _other_decided(release):
        return
    where = f"{release.endpoint.model.name} to {release.endpoint.environment}"
    yield News(
        release.requested_by_id or 0,
        Kind.RELEASE_REJECTED,
        f"Release {release.number} was rejected: {where}",
        _decision(event, "rejected it"),
        _page(event),
    )


def _member_added(event: Event) -> Iterator[News]:
    yield from _role(event, Kind.TEAM_JOINED, "You are in the team {team} now, as {role}")


def _role_changed(event: Event) -> Iterator[News]:
    yield from _role(event, Kind.ROLE_CHANGED, "You are {role} in the team {team} now")


def _role(event: Event, kind: Kind, title: str) -> Iterator[News]:
    facts = event.facts
    person, role, former = facts.get("user_id"), facts.get("role"), facts.get("before")
    if not isinstance(person, int) or _is_actor(event, person):
        return
    change = f"from {former} to {role}" if former else f"to {role}"
    yield News(
        person,
        kind,
        title.format(team=event.target_name, role=role),
        f"{_who(event)} changed the role {change}.",
        _page(event),
        told=f"{facts.get('username')} is {role} in the team {event.target_name} now",
    )


def _key_unused(event: Event) -> Iterator[News]:
    """Tell the owner and whoever manages the team's keys; nobody when it is in use again."""
    key = ApiKey.objects.filter(pk=event.target_id, revoked_at__isnull=True).first()
    if key is None or key.warned_at is None:
        return
    members = Membership.objects.filter(team_id=key.team_id, role=Role.MAINTAINER)
    for person in {key.owner_id, *members.values_list("user_id", flat=True)}:
        yield News(
            person,
            Kind.KEY_UNUSED,
            f"Nobody uses the key {key.name}",
            f"It made no call for {event.facts.get('days')} days. Revoke it, unless a program "
            "still needs it.",
            _page(event),
        )


def _audit(event: Event) -> Iterator[News]:
    """Tell who runs the platform that the record does not hold, or that nobody watches it."""
    title = "The audit chain needs a look"
    if event.verb == "audit.broken":
        title = f"The audit chain is broken at {event.facts.get('broken_at')}"
    admins = User.objects.filter(is_superuser=True, is_active=True)
    for person in admins.values_list("pk", flat=True):
        body = str(event.facts.get("what") or "")
        yield News(person, Kind.AUDIT, title, body, reverse("admin:core_event_changelist"))


def _token_reused(event: Event) -> Iterator[News]:
    yield from _sign_in_alarm(
        event,
        "A sign-in of {name} was ended: its refresh token was used twice",
        "Somebody else may hold it. If it was not a program that sends it twice, change the "
        "password and look at where the account is signed in.",
    )


def _locked_out(event: Event) -> Iterator[News]:
    """Tell of a person; a name that nobody has, or an address, is for the audit page."""
    if event.target_kind != User._meta.label_lower:
        return
    failures, minutes = event.facts.get("failures"), event.facts.get("minutes")
    yield from _sign_in_alarm(
        event,
        "{name} is locked out after failed sign-ins",
        f"{failures} sign-ins failed; the name is locked for {minutes} minutes. The audit page "
        "says from where.",
    )


def _sign_in_alarm(event: Event, title: str, body: str) -> Iterator[News]:
    """Tell platform admins, who look at the person, and the person herself."""
    name, about = event.target_name, event.target_id
    admins = User.objects.filter(is_superuser=True, is_active=True).values_list("pk", flat=True)
    for person in admins:
        if str(person) != about:
            yield News(person, Kind.SIGN_IN, title.format(name=name), body, _page(event))
    if about.isdecimal():
        yield News(int(about), Kind.SIGN_IN, title.format(name=name), body, "/admin/me/")


# Everything that anybody is told of.
RULES: Mapping[str, Rule] = {
    "release.requested": _approval_wanted,
    "release.live": _release_live,
    "release.rejected": _release_rejected,
    "version.ready": _version_ready,
    "version.rejected": _version_rejected,
    "member.added": _member_added,
    "member.role_changed": _role_changed,
    "audit.broken": _audit,
    "audit.alarm": _audit,
    "key.unused": _key_unused,
    "user.token_reused": _token_reused,
    "user.locked_out": _locked_out,
}


# -- what they look at -------------------------------------------------------------------------


def _release(event: Event) -> Release | None:
    rows = Release.objects.select_related("endpoint__model")
    return rows.filter(pk=event.target_id).first()


def _version(event: Event) -> list[ModelVersion]:
    rows = ModelVersion.objects.select_related("model").filter(uploaded_by__isnull=False)
    return list(rows.filter(pk=event.target_id)[:1])


def _other_decided(release: Release) -> bool:
    asked, decided = release.requested_by_id, release.approver_id
    return asked is not None and decided is not None and asked != decided


def _is_actor(event: Event, person: int) -> bool:
    return event.actor_kind == "user" and event.actor_id == str(person)


def _who(event: Event) -> str:
    return "The platform" if event.actor_kind == "system" else event.actor_name


def _decision(event: Event, did: str) -> str:
    return f"{_who(event)} {did}{f': {event.reason}' if event.reason else '.'}"


def _arms(event: Event) -> str:
    """Say what a release would serve: *version 4*, or *version 4 (90 %), version 5 (10 %)*."""
    arms: list[Mapping[str, Any]] = list(event.facts.get("arms") or ())
    if len(arms) == 1:
        return f"version {arms[0].get('version')}"
    told = (f"version {arm.get('version')} ({100 * arm.get('share', 0):.0f} %)" for arm in arms)
    return ", ".join(told)


def _page(event: Event) -> str:
    return page_of_kind(event.target_kind, event.target_id) or "/admin/"
