"""The page of background work: for platform admins, to look at, with its progress in words."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.snapshot import Role
from apps.core import work
from apps.core.models import Work
from tests.factories.accounts import make_member, make_team, make_user

pytestmark = pytest.mark.django_db
LIST = "admin:core_work_changelist"


def a_work(state: str = "running", **columns: Any) -> Work:
    row = work.enqueue("registry.validate_version", version_id=1)
    now = timezone.now()
    given = {"started": now, "stage": "Checking the graph", "attempts": 1}
    Work.objects.filter(pk=row.pk).update(state=state, **{**given, **columns})
    return row


@pytest.fixture
def boss() -> Client:
    client = Client()
    client.force_login(make_user("boss", is_admin=True))
    return client


@pytest.fixture
def maintainer() -> Client:
    user = make_member(make_team("blue"), Role.MAINTAINER, "tom")
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client = Client()
    client.force_login(user)
    return client


def text(client: Client, address: str) -> str:
    reply = client.get(address)
    assert reply.status_code == 200
    return str(reply.content.decode())


def test_the_list_says_state_stage_progress_and_what_went_wrong(boss: Client) -> None:
    row = a_work(done=30, total=120)
    a_work("failed", problem="The store does not answer.", error="OSError: x")
    drawn = text(boss, reverse(LIST))
    for words in (
        f"{row.pk}: validate version",
        "Checking the graph",
        'value="25"',
        "The store does not answer.",
        "mp-bad",
        "mp-working",
    ):
        assert words in drawn


def test_the_list_is_filtered_by_state_and_by_kind(boss: Client) -> None:
    running, failed = a_work(), a_work("failed")
    Work.objects.filter(pk=failed.pk).update(name="monitoring.deliver")
    drawn = text(boss, f"{reverse(LIST)}?state__exact=failed")
    assert f"{failed.pk}: deliver" in drawn
    assert f"{running.pk}: validate version" not in drawn
    drawn = text(boss, f"{reverse(LIST)}?name=registry.validate_version")
    assert f"{running.pk}: validate version" in drawn
    assert f"{failed.pk}: deliver" not in drawn


def test_the_list_asks_no_question_per_row(
    boss: Client, django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        a_work()
    with django_assert_max_num_queries(12):
        text(boss, reverse(LIST))


def test_one_piece_of_work_shows_its_stages_and_asks_again_while_it_runs(boss: Client) -> None:
    at = timezone.now().timestamp()
    row = a_work(stages=[["Fetching the file", at - 5], ["Checking the graph", at]])
    drawn = text(boss, reverse("core:work-progress", args=[row.pk]))
    assert "Fetching the file" in drawn
    assert 'hx-trigger="every 2s"' in drawn
    Work.objects.filter(pk=row.pk).update(state="done", finished=timezone.now())
    assert "hx-trigger" not in text(boss, reverse("core:work-progress", args=[row.pk]))
    page = text(boss, reverse("admin:core_work_change", args=[row.pk]))
    assert reverse("core:work-progress", args=[row.pk]) in page


@pytest.mark.parametrize("state", ["queued", "running", "done", "failed"])
def test_each_state_has_words_even_before_the_first_report(boss: Client, state: str) -> None:
    row = a_work(state, stage="")
    drawn = text(boss, reverse("core:work-progress", args=[row.pk]))
    words = {
        "queued": "Waiting for a worker",
        "running": "Starting",
        "done": "Finished",
        "failed": "Given up",
    }
    assert words[state] in drawn


def test_unknown_work_is_not_found(boss: Client) -> None:
    assert boss.get(reverse("core:work-progress", args=[9])).status_code == 404


def test_nobody_deletes_adds_or_changes_work_here(boss: Client) -> None:
    row = a_work()
    assert boss.get(reverse("admin:core_work_delete", args=[row.pk])).status_code == 403
    assert boss.get(reverse("admin:core_work_add")).status_code == 403
    boss.post(reverse("admin:core_work_change", args=[row.pk]), {"name": "x"})
    assert boss.post(
        reverse(LIST), {"action": "delete_selected", "_selected_action": row.pk}
    ).status_code in {200, 302, 403}
    row.refresh_from_db()
    assert row.name == "registry.validate_version"


def test_a_maintainer_does_not_see_background_work_of_all_teams(maintainer: Client) -> None:
    row = a_work()
    for address in (
        reverse(LIST),
        reverse("admin:core_work_change", args=[row.pk]),
        reverse("core:work-progress", args=[row.pk]),
    ):
        assert maintainer.get(address).status_code == 403


def test_who_is_not_signed_in_is_sent_to_the_sign_in_page() -> None:
    reply = Client().get(reverse("core:work-progress", args=[1]))
    assert reply.status_code == 302
    assert reply.headers["Location"].startswith(reverse("admin:login"))
