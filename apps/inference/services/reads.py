"""Reads of what is kept of redacted fields: allowed to few, never without a reason and an event."""

from datetime import UTC

from django.utils import timezone

from apps.accounts.callers import Caller
from apps.accounts.policies import Action, Thing, require
from apps.accounts.selectors import actor_of
from apps.core import events
from apps.core.errors import FieldProblem, Invalid
from apps.inference import selectors
from apps.inference.models import Prediction, PredictionDay
from apps.inference.record_keys import digests_of

MAX_REASON = 2000


def read_redacted(found: Prediction, *, reason: str, caller: Caller) -> Prediction:
    """Return a prediction with what is kept of its redacted fields, and write down who read it.

    Raises:
        NotAllowed: The caller may not.
        Invalid: There is no reason.
    """
    require(
        caller,
        Action.PREDICTION_READ_REDACTED,
        Thing(found.team_id, found.model, found.environment),
    )
    if not reason.strip() or len(reason) > MAX_REASON:
        error = Invalid(f"Say why you read redacted fields, in at most {MAX_REASON} characters.")
        error.at([FieldProblem("/reason", "A reason is needed; it stays in the audit.")])
        raise error
    events.record(
        "prediction.redacted_read",
        actor=actor_of(caller),
        target=found,
        team_id=found.team_id,
        reason=reason.strip(),
        fields=list(selectors.veil_of(found).fields),
    )
    return found


def searched_for_unit(unit: str, *, caller: Caller) -> None:
    """Write down that somebody searched also for what is kept of a unit."""
    events.record(
        "prediction.unit_searched",
        actor=actor_of(caller),
        target=PredictionDay(day=timezone.now().astimezone(UTC).date()),
        unit=digests_of(unit)[0][:17],
    )
