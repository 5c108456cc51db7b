"""Lists of the admin: a page never waits for a table to be counted to its end."""

import csv
import io

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.accounts.models import Team, User
from apps.accounts.snapshot import Role
from apps.core import paging, work
from apps.core.admin import PlatformAdmin
from apps.core.models import Work
from apps.core.paging import CappedPaginator
from tests.factories.accounts import make_member, make_team
from tests.factories.registry import make_model

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


@pytest.mark.django_db
def test_a_list_is_had_as_csv_with_its_filters_its_own_teams_and_no_formula() -> None:
    team, other = make_team("blue"), make_team("red")
    make_model("wine", team=team)
    make_model("secret", team=other)
    member = make_member(team, Role.VIEWER, "viv")
    User.objects.filter(pk=member.pk).update(is_staff=True)
    Team.objects.filter(pk=team.pk).update(name="=HYPERLINK(1)")
    client = Client()
    client.force_login(member)
    reply = client.get(reverse("admin:registry_registeredmodel_csv"))
    text = b"".join(reply.streaming_content).decode()  # type: ignore[attr-defined]  # it streams
    head, *rows = csv.reader(io.StringIO(text))
    assert head[:2] == ["name", "team"]
    assert [row[:2] for row in rows] == [["wine", "'=HYPERLINK(1)"]]
    narrowed = client.get(reverse("admin:registry_registeredmodel_csv"), {"q": "nothing"})
    assert b"wine" not in b"".join(narrowed.streaming_content)  # type: ignore[attr-defined]  # it streams


@pytest.mark.django_db
def test_a_list_is_no_csv_for_a_stranger() -> None:
    assert Client().get(reverse("admin:accounts_user_csv")).status_code == 302
    client = Client()
    member = make_member(make_team("blue"), Role.VIEWER, "viv")
    User.objects.filter(pk=member.pk).update(is_staff=True)
    client.force_login(member)
    assert client.get(reverse("admin:accounts_user_csv")).status_code == 403
