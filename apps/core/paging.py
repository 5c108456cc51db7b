"""Pages of tables that are too long to count."""

from typing import TYPE_CHECKING, Any, cast

from django.core.paginator import Paginator
from django.utils.functional import cached_property

if TYPE_CHECKING:
    from django.db.models import QuerySet

MOST_COUNTED = 10_000


class Capped(int):
    """A count that was not carried on for ever."""

    def __str__(self) -> str:
        return f"{MOST_COUNTED:,}+" if self >= MOST_COUNTED else f"{int(self):,}"


class CappedPaginator(Paginator[Any]):
    """Counts so many rows at the most, and pages over those; filters reach the older ones."""

    @cached_property
    def count(self) -> int:
        rows = cast("QuerySet[Any]", self.object_list)
        # Without its columns a row costs the count nothing but its key.
        return Capped(rows.order_by().values("pk")[:MOST_COUNTED].count())
