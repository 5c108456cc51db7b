"""What Home shows: what needs the one who looks, how things go now, what serves, what changed.

Own teams only. All numbers come from counts kept beforehand; nothing here grows with predictions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import QuerySet
from django.utils import timezone

from apps.accounts.callers import Caller
from apps.accounts.models import ApiKey
from apps.accounts.policies import PRODUCTION, Action, Thing, may
from apps.accounts.selectors import keys_in_state, keys_of, teams_of
from apps.core import sentences
from apps.core.models import Event
from apps.core.selectors import ChainStatus, chain_status
from apps.inference import traffic, windows
from apps.inference.selectors import Traffic
from apps.inference.traffic import ModelSeen, Seen
from apps.registry.models import ModelVersion, RegisteredModel, Release
from apps.registry.selectors import living_models
from apps.registry.states import ReleaseState, VersionState

MOST_NEEDS = 8
MOST_LIVE = 20
MOST_EVENTS = 9
REJECTED_DAYS = 7


@dataclass(frozen=True, slots=True)
class Needs:
    """What waits for the one who looks; each list is cut, its rest is behind its link."""

    approvals: tuple[Release, ...]
    rejected: tuple[ModelVersion, ...]
    keys: tuple[ApiKey, ...]
    audit: ChainStatus | None = None

    @property
    def are_none(self) -> bool:
        """Whether nothing waits."""
        return not (self.approvals or self.rejected or self.keys or self.audit)


@dataclass(frozen=True, slots=True)
class Now:
    """How the models that one may see answer.

    Attributes:
        per_second: Requests per second over the last hour.
        error_share: Part of the last 24 hours' requests that failed; None without requests.
        today: Requests since midnight UTC.
        live_models: Models that serve in production.
        requests: Requests by step, for the small line; the same for the others.
    """

    per_second: float
    error_share: float | None
    p95_ms: float | None
    today: int
    live_models: int
    requests: tuple[float, ...]
    errors: tuple[float, ...]
    p95s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LiveModel:
    """One production endpoint: what serves, since when, and its last 24 hours."""

    release: Release
    traffic: Traffic | None

    @property
    def arms(self) -> str:
        """The versions that serve, in words."""
        arms = self.release.typed_arms()
        if len(arms) == 1:
            return f"version {arms[0].version}"
        return ", ".join(f"version {arm.version} ({arm.share:.0%})" for arm in arms)

    @property
    def error_share(self) -> float | None:
        """Part of the requests that failed."""
        seen = self.traffic
        return seen.errors / seen.count if seen and seen.count else None


@dataclass(frozen=True, slots=True)
class Home:
    """The whole page."""

    needs: Needs
    now: Now
    live: tuple[LiveModel, ...]
    events: tuple[Event, ...]
    has_models: bool


def home_of(caller: Caller) -> Home:
    """Return what Home shows to somebody."""
    moment = timezone.now()
    models = seen_models(caller)
    scope = traffic.scope_of(caller, environment=PRODUCTION)
    window = windows.named("day", now=moment)
    busiest, _ = traffic.by_model(scope, window, most=MOST_LIVE)
    live = live_releases(models)
    return Home(
        needs=needs_of(caller, moment),
        now=_now(traffic.look(scope, window), moment, live.count()),
        live=_live(live, busiest),
        events=tuple(recent_events(caller)[:MOST_EVENTS]),
        has_models=models.exists(),
    )


def seen_models(caller: Caller) -> QuerySet[RegisteredModel]:
    """Return the models that exist for somebody."""
    models = living_models()
    return models if caller.sees_all else models.filter(team__in=teams_of(caller))


def live_releases(models: QuerySet[RegisteredModel]) -> QuerySet[Release]:
    """Return what serves in production, the newest first."""
    return (
        Release.objects.filter(
            state=ReleaseState.LIVE,
            endpoint__environment=PRODUCTION,
            endpoint__model__in=models,
        )
        .select_related("endpoint__model__team")
        .order_by("-pk")
    )


def needs_of(caller: Caller, now: datetime) -> Needs:
    """Return what waits for somebody."""
    return Needs(
        approvals=tuple(_approvals(caller)[:MOST_NEEDS]),
        rejected=tuple(_rejected(caller, now)[:MOST_NEEDS]),
        keys=tuple(_ending_keys(caller, now)[:MOST_NEEDS]),
        audit=_audit(caller),
    )


def recent_events(caller: Caller) -> QuerySet[Event]:
    """Return what happened in somebody's teams, newest first."""
    events = Event.objects.exclude(verb__in=sentences.QUIET).order_by("-id")
    if caller.sees_all:
        return events
    return events.filter(team_id__in=[team for team in caller.roles if caller.sees(team)])


def _audit(caller: Caller) -> ChainStatus | None:
    """Return how the audit chain stands, for who runs the platform, when it does not stand well."""
    if not caller.sees_all:
        return None
    status = chain_status()
    return status if status.state in ("broken", "behind") else None


def _approvals(caller: Caller) -> QuerySet[Release]:
    """Releases that somebody else asked for and this one may approve; the longest waiting first."""
    waiting = Release.objects.filter(
        state=ReleaseState.AWAITING_APPROVAL, endpoint__model__deleted_at__isnull=True
    ).exclude(requested_by_id=caller.user_id)
    if not caller.sees_all:
        teams = [one for one in caller.roles if may(caller, Action.RELEASE_APPROVE, Thing(one))]
        waiting = waiting.filter(endpoint__model__team__in=teams)
    return waiting.select_related("endpoint__model").order_by("created")


def _rejected(caller: Caller, now: datetime) -> QuerySet[ModelVersion]:
    return (
        ModelVersion.objects.filter(
            uploaded_by_id=caller.user_id,
            state=VersionState.REJECTED,
            decided__gte=now - timedelta(days=REJECTED_DAYS),
            model__deleted_at__isnull=True,
        )
        .select_related("model")
        .defer("signature", "example", "declared_signature")
        .order_by("-decided")
    )


def _ending_keys(caller: Caller, now: datetime) -> QuerySet[ApiKey]:
    managed = [team for team in caller.roles if may(caller, Action.KEY_MANAGE, Thing(team))]
    return keys_in_state(keys_of(caller, managed=managed), "expires soon", now).order_by(
        "expires_at"
    )


def _now(seen: Seen, moment: datetime, live_models: int) -> Now:
    steps = seen.steps
    an_hour = max(1, 3600 // seen.window.step_seconds)
    counts = [one.count for one in steps]
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    first = max(0, seen.window.place(midnight)) if midnight >= seen.window.start else 0
    return Now(
        per_second=sum(counts[-an_hour:]) / 3600,
        error_share=seen.total.errors / seen.total.count if seen.total.count else None,
        p95_ms=seen.total.p95_ms,
        today=sum(counts[first:]),
        live_models=live_models,
        requests=_thinned(counts),
        errors=_thinned([one.errors for one in steps]),
        p95s=_highest([one.p95_ms or 0.0 for one in steps]),
    )


# A small line has this many points; more of them are a smear.
_POINTS = 48


def _thinned(values: Sequence[float]) -> tuple[float, ...]:
    """Add neighbouring steps up until few points are left."""
    size = max(1, -(-len(values) // _POINTS))
    return tuple(float(sum(values[at : at + size])) for at in range(0, len(values), size))


def _highest(values: Sequence[float]) -> tuple[float, ...]:
    """Keep the highest of neighbouring steps: a peak must not vanish in a mean."""
    size = max(1, -(-len(values) // _POINTS))
    return tuple(max(values[at : at + size]) for at in range(0, len(values), size))


def _live(live: QuerySet[Release], busiest: Sequence[ModelSeen]) -> tuple[LiveModel, ...]:
    """Put the busiest first, then those without requests, the newest release first."""
    totals = {one.model: one.total for one in busiest}
    found = {
        release.endpoint.model.name: release
        for release in live.filter(endpoint__model__name__in=list(totals))
    }
    rows = [LiveModel(found[name], totals[name]) for name in totals if name in found]
    if len(rows) < MOST_LIVE:
        quiet = live.exclude(endpoint__model__name__in=list(totals))
        rows += [LiveModel(release, None) for release in quiet[: MOST_LIVE - len(rows)]]
    return tuple(rows)
