"""Make, change and give plans; a change reaches serving with the transaction that makes it."""

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F

from apps.accounts.callers import Caller
from apps.accounts.models import Plan, User
from apps.accounts.policies import TRIAL, require_plan
from apps.accounts.selectors import plan_body
from apps.accounts.services import people
from apps.accounts.snapshot import PLAN, CountedBy, plan_to_json
from apps.core import events, snapshot
from apps.core.errors import Conflict, FieldProblem, Invalid, NotAllowed, NotFound
from apps.core.events import Actor
from apps.core.models import SnapshotEntry

STANDARD, UNLIMITED = "standard", "unlimited"
# New people get one of these, and old keys have the last.
BUILT_IN = (TRIAL, STANDARD, UNLIMITED)
NUMBERS = ("requests_per_minute", "rows_per_minute", "rows_per_day", "rows_per_call")
_FIELDS = ("title", *NUMBERS, "counted_by", "is_offered")

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


@dataclass(frozen=True, slots=True)
class PlanWish:
    """What a plan shall be; None is no limit.

    Attributes:
        is_offered: Whether a maintainer may give it to a key; a platform admin may give any.
    """

    title: str
    requests_per_minute: int | None = None
    rows_per_minute: int | None = None
    rows_per_day: int | None = None
    rows_per_call: int | None = None
    counted_by: CountedBy = CountedBy.KEY
    is_offered: bool = True


def make_first_plans() -> None:
    """Make those that are missing."""
    Plan.objects.bulk_create(FIRST_PLANS, ignore_conflicts=True)


@transaction.atomic
def make_plan(name: str, *, wish: PlanWish, actor: Actor) -> Plan:
    """Make a plan of another name than those that are there."""
    if Plan.objects.filter(pk=name).exists():
        raise Conflict(f"There is a plan `{name}` already. Change that one, or choose a name.")
    plan = Plan(name=name)
    _fill(plan, asdict(wish))
    plan.save(force_insert=True)
    events.record("plan.created", actor=actor, target=plan, after=_told(plan))
    _publish(plan)
    return plan


@transaction.atomic
def change_plan(name: str, *, changes: Mapping[str, Any], actor: Actor) -> Plan:
    """Change what a plan allows: all that are on it feel it within seconds.

    ``changes`` are new values of some fields of a ``PlanWish``; the others stay as they are now,
    whoever changed them last.
    """
    plan = _locked(name)
    before = _told(plan)
    _fill(plan, changes)
    after = _told(plan)
    changed = [field for field in _FIELDS if before[field] != after[field]]
    if not changed:
        return plan
    plan.save(update_fields=changed)
    events.record(
        "plan.changed",
        actor=actor,
        target=plan,
        before={field: before[field] for field in changed},
        after={field: after[field] for field in changed},
    )
    _publish(plan)
    return plan


@transaction.atomic
def delete_plan(name: str, *, actor: Actor, reason: str = "") -> None:
    """Take a plan away that nobody is on."""
    plan = _locked(name)
    if name in BUILT_IN:
        raise Conflict(
            f"The plan `{name}` stays: the platform gives it to people and keys. Its numbers may "
            "change, and it need not be offered."
        )
    keys, users = plan.keys.count(), plan.people.count()
    if keys or users:
        raise Conflict(
            f"The plan `{name}` is in use by {keys} keys and {users} people. Give them another "
            "plan first; a revoked key counts as well, its history names the plan."
        )
    events.record("plan.deleted", actor=actor, target=plan, reason=reason, before=_told(plan))
    Plan.objects.filter(pk=name).delete()
    snapshot.drop(PLAN, name)


@transaction.atomic
def give_plan(user: User, *, name: str, actor: Actor) -> None:
    """Put a person on a plan: her tokens at once, and the keys that she makes from now on."""
    plan = held_plan(name)
    people.lock(user)
    before = User.objects.values_list("plan_id", flat=True).get(pk=user.pk)
    if before == plan.pk:
        return
    user.plan = plan
    user.save(update_fields=["plan"])
    events.record(
        "user.plan_changed",
        actor=actor,
        target=user,
        plan=plan.pk,
        before={"plan": before},
        after={"plan": plan.pk},
    )
    people.publish(user)


def usual_plan(caller: Caller, owner: User) -> str:
    """Return the plan of a new key for which none is chosen."""
    return caller.key.plan if caller.key is not None else str(owner.plan_id)


def require_givable(caller: Caller, *, team_id: int, name: str, owner: User) -> None:
    """Refuse to give a key a plan that is not there, or not the caller's to give."""
    _require_givable(caller, team_id, known_plan(name), owner, own_plan(caller))


def givable_plans(caller: Caller, *, team_id: int, owner: User) -> list[Plan]:
    """Return the plans that a caller may give to a key."""
    own, found = own_plan(caller), []
    for plan in Plan.objects.order_by(F("requests_per_minute").asc(nulls_last=True), "name"):
        with contextlib.suppress(NotAllowed):
            _require_givable(caller, team_id, plan, owner, own)
            found.append(plan)
    return found


def own_plan(caller: Caller) -> str:
    """Return the plan of the person behind a caller."""
    return str(User.objects.values_list("plan_id", flat=True).get(pk=caller.user_id))


def _require_givable(caller: Caller, team_id: int, plan: Plan, owner: User, own: str) -> None:
    require_plan(
        caller,
        team_id=team_id,
        plan=plan.pk,
        is_offered=plan.is_offered,
        own=own,
        owners=str(owner.plan_id),
    )


def known_plan(name: str) -> Plan:
    """Return a plan that shall be given; ``Invalid`` names the field when there is none."""
    plan = Plan.objects.filter(pk=name).first()
    if plan is None:
        raise Invalid("There is no such plan.").at(
            [FieldProblem("/plan", f"There is no plan `{name}`. `GET /api/v1/plans` lists them.")]
        )
    return plan


def held_plan(name: str) -> Plan:
    """Return a plan that is given in this transaction: until its end nobody deletes it.

    The database looks at foreign keys only at the commit; whoever deleted the plan meanwhile would
    turn the gift into an error.
    """
    Plan.objects.select_for_update(no_key=True).filter(pk=name).first()
    return known_plan(name)


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


def _locked(name: str) -> Plan:
    plan = Plan.objects.select_for_update().filter(pk=name).first()
    if plan is None:
        raise NotFound(f"There is no plan `{name}` here.")
    return plan


def _fill(plan: Plan, values: Mapping[str, Any]) -> None:
    for field in _FIELDS:
        if field in values:
            setattr(plan, field, values[field])
    plan.counted_by = CountedBy(plan.counted_by).value
    try:
        plan.full_clean(validate_unique=False)
    except ValidationError as error:
        raise Invalid("The plan cannot be like this.").at(
            [FieldProblem(f"/{at}", text) for at, texts in error.message_dict.items()
             for text in texts]
        ) from error  # fmt: skip


def _told(plan: Plan) -> dict[str, Any]:
    return {field: getattr(plan, field) for field in _FIELDS}


def _publish(plan: Plan) -> None:
    snapshot.put(PLAN, plan.pk, plan_to_json(plan_body(plan)))
