"""Make and change plans; a change reaches serving with the transaction that makes it."""

from django.db import transaction

from apps.accounts.models import Plan
from apps.accounts.selectors import plan_body
from apps.accounts.snapshot import PLAN, plan_to_json
from apps.core import snapshot
from apps.core.models import SnapshotEntry

TRIAL, STANDARD, UNLIMITED = "trial", "standard", "unlimited"

# What an installation begins with; an operator changes the numbers as she likes.
FIRST_PLANS = (
    Plan(
        name=TRIAL,
        title="Trial",
        requests_per_minute=100,
        rows_per_minute=10,
        rows_per_day=1_000,
        rows_per_call=10,
        counted_by=Plan.Counting.PERSON,
    ),
    Plan(
        name=STANDARD,
        title="Standard",
        requests_per_minute=6_000,
        rows_per_minute=60_000,
        rows_per_day=5_000_000,
    ),
    Plan(name=UNLIMITED, title="Unlimited", is_offered=False),
)


def make_first_plans() -> None:
    """Make those that are missing."""
    Plan.objects.bulk_create(FIRST_PLANS, ignore_conflicts=True)


@transaction.atomic
def publish_stale() -> int:
    """Write the entries that do not say what the plans' rows say; return how many."""
    kept = dict(SnapshotEntry.objects.filter(kind=PLAN, deleted=False).values_list("key", "body"))
    stale = 0
    for plan in Plan.objects.select_for_update().order_by("pk"):
        body = plan_to_json(plan_body(plan))
        if kept.get(plan.pk) != body:
            snapshot.put(PLAN, plan.pk, body)
            stale += 1
    return stale
