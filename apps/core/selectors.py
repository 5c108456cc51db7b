"""What the audit page reads of the chain without walking it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Min, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from apps.core import anchors, work
from apps.core.chain import BROKEN, CHAIN_ID, CHAIN_KIND, VERIFIED
from apps.core.events import LOOK_BACK, head
from apps.core.models import AuditAnchor, Event, EventSeal
from apps.core.work import Progress

# The sealer runs every second; a tail that is older than this says that it does not.
LATE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ChainStatus:
    """How the chain stands, as far as one glance tells.

    Attributes:
        sealed: Events in the chain.
        head: Hash of its last link.
        unsealed: Events of the last hour, or behind the last link, that no link covers yet.
        oldest_unsealed: When the first of them was written.
        last: The event of the newest whole verification, or None.
        run: The newest run of the verification, or None.
        has_anchors: Whether heads are written down outside the database.
        anchor: The newest of them that the database knows of, or None.
        anchor_is_stale: It is older than it may be.
    """

    sealed: int
    head: str
    unsealed: int
    oldest_unsealed: datetime | None
    last: Event | None
    run: Progress | None
    has_anchors: bool
    anchor: AuditAnchor | None
    anchor_is_stale: bool

    @property
    def is_running(self) -> bool:
        """Whether somebody asked for a verification that has not ended."""
        return self.run is not None and not self.run.is_over

    @property
    def state(self) -> str:
        """The chain in one word of the list of states."""
        if self.is_running:
            return "running"
        if self.last is not None and self.last.verb == BROKEN:
            return "broken"
        if self.oldest_unsealed is not None and timezone.now() - self.oldest_unsealed > LATE:
            return "behind"
        if self.anchor_is_stale:
            return "behind"
        return "verified" if self.last is not None else "never verified"


def chain_status() -> ChainStatus:
    """Return the head of the chain, its unsealed tail, and the last verification."""
    sealed, last = head()
    # Behind the last link: what piles up while no sealer runs grows older than the look back.
    newest = EventSeal.objects.order_by("-seq").values("event_id")[:1]
    fresh = Q(at__gte=timezone.now() - LOOK_BACK) | Q(pk__gt=Coalesce(newest, 0))
    tail = Event.objects.filter(fresh, seal__isnull=True).aggregate(
        count=Count("id"), oldest=Min("at")
    )
    checks = Event.objects.filter(target_kind=CHAIN_KIND, verb__in=(VERIFIED, BROKEN))
    note = anchors.newest_note() if anchors.is_on() else None
    return ChainStatus(
        sealed=sealed,
        head=last,
        unsealed=tail["count"],
        oldest_unsealed=tail["oldest"],
        last=checks.order_by("-id").first(),
        run=work.newest_of(CHAIN_KIND, CHAIN_ID),
        has_anchors=anchors.is_on(),
        anchor=note,
        anchor_is_stale=anchors.is_stale(note),
    )
