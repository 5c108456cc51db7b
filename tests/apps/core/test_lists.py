"""Lists of the admin: a page never waits for a table to be counted to its end."""

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.core import paging, work
from apps.core.admin import PlatformAdmin
from apps.core.models import Work
from apps.core.paging import CappedPaginator

OURS = [one for one in admin.site._registry.values() if isinstance(one, PlatformAdmin)]


@pytest.mark.parametrize("screen", OURS, ids=lambda one: one.model._meta.label)
def test_every_list_counts_so_many_rows_at_the_most(screen: PlatformAdmin) -> None:
    assert issubclass(screen.paginator, CappedPaginator)


@pytest.mark.django_db
def test_a_longer_table_is_said_to_have_more_and_is_not_counted_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paging, "MOST_COUNTED", 2)
    for number in range(3):
        work.enqueue("registry.validate_version", version_id=number)
    with CaptureQueriesContext(
        connection,
    ) as asked:
        count = CappedPaginator(Work.objects.order_by("pk"), 50).count
    assert str(count) == "2+"
    assert "LIMIT 2" in asked.captured_queries[0]["sql"]


@pytest.mark.django_db
def test_a_short_table_has_its_own_count() -> None:
    work.enqueue("registry.validate_version", version_id=1)
    assert str(CappedPaginator(Work.objects.order_by("pk"), 50).count) == "1"
