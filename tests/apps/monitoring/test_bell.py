"""The bell shows one's own news, keeps still while nothing is new, and reads aloud well."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import Membership, User
from apps.accounts.services import teams
from apps.accounts.snapshot import Role
from apps.core import events
from apps.monitoring.models import Notification
from apps.monitoring.services import news
from tests.factories.accounts import SYSTEM, make_member, make_team, make_user
from tests.factories.registry import make_model, make_release, make_version

pytestmark = pytest.mark.django_db


def tell(person: User, title: str = "wine 4 is ready", **columns: Any) -> Notification:
    number = Notification.objects.count() + 1
    given = {"kind": Notification.Kind.VERSION_READY, "event_id": number, "url": "/admin/x/"}
    return Notification.objects.create(
        person=person, title=title, created=timezone.now(), **{**given, **columns}
    )


def signed_in(user: User) -> Client:
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def mara() -> User:
    return make_user("mara")


@pytest.fixture
def client(mara: User) -> Client:
    return signed_in(mara)


def page(client: Client, name: str = "bell", query: str = "", *args: object) -> str:
    reply = client.get(reverse(f"monitoring:{name}", args=args) + query)
    assert reply.status_code == 200
    return str(reply.content.decode())


# -- the bell ----------------------------------------------------------------------------------


def test_the_bell_says_how_many_are_unread_and_lists_the_newest(client: Client, mara: User) -> None:
    for number in range(12):
        tell(mara, f"wine {number} is ready")
    tell(mara, "cheese 1 is ready", read_at=timezone.now())
    drawn = page(client)
    assert 'aria-label="Notifications, 12 unread"' in drawn
    assert "cheese 1 is ready" in drawn
    assert "wine 3 is ready" in drawn
    assert "wine 2 is ready" not in drawn, "the tenth is the last"


def test_a_bell_without_news_says_what_it_is_for(client: Client) -> None:
    drawn = page(client)
    assert 'aria-label="Notifications, 0 unread"' in drawn
    assert "Nothing yet." in drawn


def test_more_than_a_hundred_unread_are_not_counted(client: Client, mara: User) -> None:
    for _ in range(120):
        tell(mara)
    assert 'aria-label="Notifications, 99+ unread"' in page(client)


def test_an_unchanged_bell_is_not_drawn_again(client: Client, mara: User) -> None:
    one = tell(mara)
    address = reverse("monitoring:bell")
    assert client.get(f"{address}?mark={one.pk}-1").status_code == 204
    assert client.get(f"{address}?mark={one.pk}-0").status_code == 200
    tell(mara)
    assert client.get(f"{address}?mark={one.pk}-1").status_code == 200


def test_strangers_words_are_text_and_nothing_else(client: Client, mara: User) -> None:
    tell(mara, "<script>alert(1)</script>", body="<img src=x>")
    for drawn in (page(client), page(client, "notifications")):
        assert "<script>alert" not in drawn
        assert "&lt;script&gt;alert(1)" in drawn
        assert "<img" not in drawn


def test_the_bell_asks_a_fixed_number_of_questions(
    client: Client, mara: User, django_assert_num_queries: Any
) -> None:
    tell(mara)
    page(client)
    for _ in range(9):
        tell(mara)
    with django_assert_num_queries(4):  # session, person, count, newest
        page(client)


def test_every_admin_page_has_the_bell_in_its_header(client: Client) -> None:
    drawn = client.get(reverse("admin:registry_registeredmodel_changelist")).content.decode()
    assert f'hx-get="{reverse("monitoring:bell")}"' in drawn
    assert 'id="mp-bell-news" role="status" aria-live="polite"' in drawn
    assert "monitoring/bell.js" in drawn


# -- reading -----------------------------------------------------------------------------------


def test_one_is_marked_as_read_and_the_others_stay(client: Client, mara: User) -> None:
    one, other = tell(mara), tell(mara)
    reply = client.post(
        reverse("monitoring:bell-read"), {"notification": one.pk}, headers={"HX-Request": "true"}
    )
    assert 'aria-label="Notifications, 1 unread"' in reply.content.decode()
    one.refresh_from_db()
    other.refresh_from_db()
    assert (one.read_at is not None, other.read_at) == (True, None)


def test_all_are_marked_as_read_at_once(client: Client, mara: User) -> None:
    tell(mara)
    tell(mara)
    reply = client.post(reverse("monitoring:bell-read"))
    assert reply.headers["Location"] == reverse("monitoring:notifications")
    assert Notification.objects.filter(read_at__isnull=True).count() == 0


def test_reading_again_keeps_the_time_of_the_first(client: Client, mara: User) -> None:
    moment = timezone.now().replace(year=2020)
    one = tell(mara, read_at=moment)
    client.post(reverse("monitoring:bell-read"))
    one.refresh_from_db()
    assert one.read_at == moment


def test_opening_one_leads_to_its_page_and_reads_it(client: Client, mara: User) -> None:
    one = tell(mara)
    reply = client.get(reverse("monitoring:notification", args=[one.pk]))
    assert (reply.status_code, reply.headers["Location"]) == (302, "/admin/x/")
    one.refresh_from_db()
    assert one.read_at is not None


def test_nothing_is_marked_without_the_token_against_forged_posts(mara: User) -> None:
    one = tell(mara)
    User.objects.update(is_staff=True)
    client = Client(enforce_csrf_checks=True)
    client.force_login(mara)
    assert client.post(reverse("monitoring:bell-read")).status_code == 403
    one.refresh_from_db()
    assert one.read_at is None


def test_looking_is_not_marking(client: Client, mara: User) -> None:
    tell(mara)
    assert client.get(reverse("monitoring:bell-read")).status_code == 405
    page(client)
    page(client, "notifications")
    assert Notification.objects.filter(read_at__isnull=True).count() == 1


@pytest.mark.parametrize("wrong", ["x", "-1", "1 OR 1=1", "٣x", "9" * 5000])
def test_a_number_that_is_none_is_not_found(client: Client, wrong: str) -> None:
    reply = client.post(reverse("monitoring:bell-read"), {"notification": wrong})
    assert reply.status_code == 404


# -- whose -------------------------------------------------------------------------------------


def test_nobody_sees_or_reads_what_another_was_told(client: Client, mara: User) -> None:
    tom = make_user("tom", is_admin=True)
    theirs = tell(tom, "a secret")
    tell(mara, "a word")
    for one, not_theirs in ((client, "a secret"), (signed_in(tom), "a word")):
        assert not_theirs not in page(one) + page(one, "notifications")
    client.post(reverse("monitoring:bell-read"), {"notification": theirs.pk})
    client.post(reverse("monitoring:bell-read"))
    assert client.get(reverse("monitoring:notification", args=[theirs.pk])).status_code == 404
    theirs.refresh_from_db()
    assert theirs.read_at is None


@pytest.mark.parametrize("name", ["bell", "bell-read", "notifications"])
def test_who_is_not_signed_in_is_sent_to_the_sign_in_page(name: str) -> None:
    reply = Client().get(reverse(f"monitoring:{name}"))
    assert reply.status_code == 302
    assert reply.headers["Location"].startswith(reverse("admin:login"))


# -- the list ----------------------------------------------------------------------------------


def test_the_list_has_pages_and_a_filter_for_unread(client: Client, mara: User) -> None:
    for number in range(30):
        tell(mara, f"wine {number} is ready", read_at=timezone.now() if number < 10 else None)
    first, second = page(client, "notifications"), page(client, "notifications", "?page=2")
    assert "wine 29 is ready" in first
    assert "Page 1 of 2" in first
    assert "wine 0 is ready" in second
    unread = page(client, "notifications", "?show=unread")
    assert "wine 10 is ready" in unread
    assert "wine 9 is ready" not in unread
    assert "Page 1 of" not in unread


def test_an_empty_list_says_what_comes_here(client: Client) -> None:
    assert "No notifications yet." in page(client, "notifications")
    assert "You have read everything." in page(client, "notifications", "?show=unread")


def test_the_list_asks_a_fixed_number_of_questions(
    client: Client, mara: User, django_assert_max_num_queries: Any
) -> None:
    for _ in range(25):
        tell(mara)
    with django_assert_max_num_queries(12):
        page(client, "notifications")


def test_whatever_one_is_told_leads_to_a_page_that_opens(settings: Any) -> None:
    settings.REQUIRE_APPROVAL = True
    blue = make_team("blue")
    people = {role: make_member(blue, role) for role in Role}
    version = make_version(make_model("wine", team=blue), person_id=people[Role.CONTRIBUTOR].pk)
    make_release(version)
    member = Membership.objects.get(user=people[Role.VIEWER])
    teams.change_role(member, role=Role.CONTRIBUTOR, actor=SYSTEM)
    events.seal_pending()
    news.tell_pending()
    told = Notification.objects.select_related("person")
    kinds = {one.kind for one in told}
    assert {"approval_wanted", "version_ready", "team_joined", "role_changed"} <= kinds
    for one in told:
        assert signed_in(one.person).get(one.url).status_code == 200, one.title
