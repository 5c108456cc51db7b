"""Reads a moment from an address, the same for programs and for people."""

import re
from datetime import UTC, datetime

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from apps.core.errors import FieldProblem, Invalid

# A plus sign of a zone, which an address that is not escaped turns into a space.
LOST_PLUS = re.compile(r" (\d\d:?\d\d)$")


def moment_of(text: str) -> datetime:
    """Read a moment from an address; without a zone it is UTC.

    Raises:
        Invalid: It cannot be read.
    """
    try:
        moment = parse_datetime(LOST_PLUS.sub(r"+\1", text.strip()))
    except ValueError:  # looks like one, and is no date
        moment = None
    if moment is None:
        detail = (
            f"`{text[:40]}` is no moment. Write it as 2026-11-21T15:00, in UTC, or with a zone as "
            "2026-11-21T16:00+01:00."
        )
        raise Invalid(detail).at([FieldProblem("/at", detail)])
    return moment.replace(tzinfo=UTC) if timezone.is_naive(moment) else moment.astimezone(UTC)
