"""What the audit page reads of the chain without walking it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Min
from django.utils import timezone

from apps.core import work
from apps.core.events import GENESIS, LOOK_BACK
from apps.core.models import Event, EventSeal
from apps.core.work import Progress

VERIFIED, BROKEN = "audit.verified", "audit.broken"
# The chain as a subject of work: the seal that is before its first.
CHAIN_KIND, CHAIN_ID = "core.eventseal", 0
# The sealer runs every second; a tail that is older than this says that it does not.
LATE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ChainStatus:
    """How the chain stands, as far as one glance tells.

    Attributes:
        sealed: Events in the chain.
        head: Hash of its last link.
        unsealed: Events of the last hour that no link covers yet.
        oldest_unsealed: When the first of them was written.
        last: The event of the newest whole verification, or None.
        run: The newest run of the verification, or None.
    """

    sealed: int
    head: str
    unsealed: int
    oldest_unsealed: datetime | None
    last: Event | None
    run: Progress | None

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
        return "verified" if self.last is not None else "never verified"


def chain_status() -> ChainStatus:
    """Return the head of the chain, its unsealed tail, and the last verification."""
    head = EventSeal.objects.order_by("-seq").values_list("seq", "hash").first() or (0, GENESIS)
    fresh = Event.objects.filter(at__gte=timezone.now() - LOOK_BACK, seal__isnull=True)
    tail = fresh.aggregate(count=Count("id"), oldest=Min("at"))
    checks = Event.objects.filter(target_kind=CHAIN_KIND, verb__in=(VERIFIED, BROKEN))
    return ChainStatus(
        sealed=head[0],
        head=head[1],
        unsealed=tail["count"],
        oldest_unsealed=tail["oldest"],
        last=checks.order_by("-id").first(),
        run=work.newest_of(CHAIN_KIND, CHAIN_ID),
    )
