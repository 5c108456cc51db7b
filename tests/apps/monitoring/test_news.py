"""Who is told of what: exactly those who must know, once, whatever dies in between."""

from typing import Any

import pytest
from django.test import override_settings

from apps.accounts.models import Membership, Team, User
from apps.accounts.services import people, sessions, teams
from apps.accounts.snapshot import Role
from apps.core import events, write_once
from apps.core.errors import InvalidToken, WrongPassword
from apps.core.events import Actor
from apps.core.models import Event, EventSeal, Work
from apps.monitoring import rules
from apps.monitoring.models import Delivery, NewsCursor, Notification
from apps.monitoring.services import news
from apps.registry.models import ModelVersion, Release
from apps.registry.services import lifecycle, releases, validation
from tests.factories.accounts import PASSWORD, SYSTEM, make_member, make_team, make_user
from tests.factories.registry import FakeSandbox, endpoint_of, make_model, make_upload, make_version

pytestmark = pytest.mark.django_db
Kind = Notification.Kind


class Cast:
    """Two teams and their people; all that happened while they came is told already."""

    def __init__(self) -> None:
        self.blue, self.red = make_team("blue"), make_team("red")
        self.viewer = make_member(self.blue, Role.VIEWER, "vera")
        self.mara = make_member(self.blue, Role.CONTRIBUTOR, "mara")
        self.tom = make_member(self.blue, Role.MAINTAINER, "tom")
        self.ute = make_member(self.blue, Role.MAINTAINER, "ute")
        self.stranger = make_member(self.red, Role.MAINTAINER, "stranger")
        self.boss = make_user("boss", is_admin=True)
        told()
        Notification.objects.all().delete()


@pytest.fixture
def cast() -> Cast:
    return Cast()


def told() -> int:
    events.seal_pending()
    return news.tell_pending()


def who_was_told(kind: Kind) -> set[str]:
    rows = Notification.objects.filter(kind=kind).select_related("person")
    return {one.person.username for one in rows}


def acting(user: User) -> Actor:
    return Actor("user", str(user.pk), user.username)


def asked(version: ModelVersion, by: User, reason: str = "better F1") -> Release:
    with override_settings(REQUIRE_APPROVAL=True):
        return released(version, by, reason)


def released(version: ModelVersion, by: User, reason: str = "better F1") -> Release:
    return releases.make_release(
        endpoint_of(version.model),
        version=version.number,
        reason=reason,
        actor=acting(by),
        person_id=by.pk,
    )


def version_of(team: Team, by: User) -> ModelVersion:
    return make_version(make_model("wine", team=team), person_id=by.pk)


# -- the rules ---------------------------------------------------------------------------------


def test_approval_is_wanted_of_the_teams_approvers_except_who_asked(cast: Cast) -> None:
    asked(version_of(cast.blue, cast.mara), by=cast.tom)
    told()
    assert who_was_told(Kind.APPROVAL_WANTED) == {"ute"}
    one = Notification.objects.filter(kind=Kind.APPROVAL_WANTED).first()
    assert one is not None
    assert one.title == "Approval wanted: wine to production"
    assert "tom asks for release 1: version 1. Reason: better F1" in one.body
    assert one.url == f"/admin/registry/release/{Release.objects.get().pk}/change/"


def test_a_platform_admin_is_asked_where_the_team_has_nobody_else(cast: Cast) -> None:
    people.set_active(cast.ute, active=False, actor=SYSTEM)
    asked(version_of(cast.blue, cast.mara), by=cast.tom)
    told()
    assert who_was_told(Kind.APPROVAL_WANTED) == {"boss"}


def test_nobody_is_asked_for_an_approval_that_was_decided_meanwhile(cast: Cast) -> None:
    release = asked(version_of(cast.blue, cast.mara), by=cast.mara)
    releases.reject(release, actor=acting(cast.tom), person_id=cast.tom.pk, reason="not now")
    told()
    assert who_was_told(Kind.APPROVAL_WANTED) == set()


def test_a_disabled_maintainer_is_not_asked(cast: Cast) -> None:
    people.set_active(cast.ute, active=False, actor=SYSTEM)
    asked(version_of(cast.blue, cast.mara), by=cast.mara)
    told()
    assert who_was_told(Kind.APPROVAL_WANTED) == {"tom"}


def test_the_uploader_alone_is_told_that_a_version_is_ready(cast: Cast) -> None:
    version_of(cast.blue, cast.mara)
    told()
    assert who_was_told(Kind.VERSION_READY) == {"mara"}
    assert set(Notification.objects.values_list("title", flat=True)) == {"wine 1 is ready"}


def test_a_version_that_comes_back_from_the_archive_is_no_news(cast: Cast) -> None:
    version = version_of(cast.blue, cast.mara)
    told()
    lifecycle.archive(version, actor=acting(cast.tom))
    lifecycle.restore(version, actor=acting(cast.tom))
    told()
    assert Notification.objects.filter(kind=Kind.VERSION_READY).count() == 1


def test_the_uploader_alone_is_told_why_a_version_was_rejected(cast: Cast) -> None:
    version = make_upload(make_model("wine", team=cast.blue), person_id=cast.mara.pk)
    validation.validate_version(version.pk, inspect=FakeSandbox("The graph has no output."))
    told()
    assert who_was_told(Kind.VERSION_REJECTED) == {"mara"}
    assert Notification.objects.get().body == "The graph has no output."


def test_who_asked_is_told_that_another_approved(cast: Cast) -> None:
    release = asked(version_of(cast.blue, cast.mara), by=cast.mara)
    told()
    releases.approve(release, actor=acting(cast.tom), person_id=cast.tom.pk, reason="fine")
    told()
    assert who_was_told(Kind.RELEASE_LIVE) == {"mara"}
    assert Notification.objects.get(kind=Kind.RELEASE_LIVE).body == "tom approved it: fine"


def test_who_released_without_asking_needs_no_news_of_it(cast: Cast) -> None:
    released(version_of(cast.blue, cast.mara), by=cast.tom)
    told()
    assert who_was_told(Kind.RELEASE_LIVE) == set()


def test_who_asked_is_told_that_another_rejected(cast: Cast) -> None:
    release = asked(version_of(cast.blue, cast.mara), by=cast.mara)
    told()
    releases.reject(release, actor=acting(cast.tom), person_id=cast.tom.pk, reason="F1 is worse")
    told()
    assert who_was_told(Kind.RELEASE_REJECTED) == {"mara"}
    assert "F1 is worse" in Notification.objects.get(kind=Kind.RELEASE_REJECTED).body


def test_who_made_the_replaced_release_is_told_of_the_roll_back(cast: Cast) -> None:
    first = version_of(cast.blue, cast.mara)
    second = make_version(first.model)
    released(first, by=cast.ute)
    released(second, by=cast.tom)
    releases.roll_back(
        endpoint_of(first.model), actor=acting(cast.ute), person_id=cast.ute.pk, reason="errors"
    )
    told()
    assert who_was_told(Kind.ROLLED_BACK) == {"tom"}
    assert who_was_told(Kind.RELEASE_LIVE) == set()
    body = Notification.objects.get(kind=Kind.ROLLED_BACK).body
    assert body == "ute replaced release 2 of tom: errors"


def test_who_rolls_back_their_own_release_needs_no_news_of_it(cast: Cast) -> None:
    first = version_of(cast.blue, cast.mara)
    released(first, by=cast.tom)
    released(make_version(first.model), by=cast.tom)
    releases.roll_back(endpoint_of(first.model), actor=acting(cast.tom), person_id=cast.tom.pk)
    told()
    assert who_was_told(Kind.ROLLED_BACK) == set()


def test_a_person_alone_is_told_of_their_role(cast: Cast) -> None:
    member = Membership.objects.get(user=cast.viewer, team=cast.blue)
    teams.change_role(member, role=Role.CONTRIBUTOR, actor=acting(cast.tom))
    teams.add_member(cast.red, cast.viewer, role=Role.VIEWER, actor=acting(cast.stranger))
    told()
    assert who_was_told(Kind.ROLE_CHANGED) == who_was_told(Kind.TEAM_JOINED) == {"vera"}
    assert set(Notification.objects.values_list("title", flat=True)) == {
        "You are contributor in the team Blue now",
        "You are in the team Red now, as viewer",
    }


def test_who_changes_their_own_role_needs_no_news_of_it(cast: Cast) -> None:
    member = Membership.objects.get(user=cast.tom, team=cast.blue)
    teams.change_role(member, role=Role.VIEWER, actor=acting(cast.tom))
    told()
    assert Notification.objects.count() == 0


def test_who_left_the_team_hears_no_more_of_its_models(cast: Cast) -> None:
    version = make_upload(make_model("wine", team=cast.blue), person_id=cast.mara.pk)
    teams.remove_member(Membership.objects.get(user=cast.mara), actor=acting(cast.tom))
    validation.validate_version(version.pk, inspect=FakeSandbox())
    told()
    assert Notification.objects.count() == 0


def test_a_stranger_is_told_nothing_of_another_teams_matters(cast: Cast) -> None:
    version = version_of(cast.blue, cast.mara)
    release = asked(version, by=cast.mara)
    told()
    releases.approve(release, actor=acting(cast.tom), person_id=cast.tom.pk)
    told()
    assert Notification.objects.filter(person=cast.stranger).count() == 0
    assert Notification.objects.count() > 0


def test_a_rule_cannot_tell_a_stranger_even_if_it_wants_to(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_all(event: Event) -> list[rules.News]:
        ids = User.objects.values_list("pk", flat=True)
        return [rules.News(pk, Kind.VERSION_READY, "x", "", "/admin/") for pk in ids]

    monkeypatch.setattr(rules, "RULES", {"version.uploaded": to_all})
    make_upload(make_model("wine", team=cast.blue))
    told()
    assert who_was_told(Kind.VERSION_READY) == {"vera", "mara", "tom", "ute", "boss"}


def test_words_of_strangers_become_one_printable_line() -> None:
    assert rules.one_line("a\r\nBcc: b@example.org\x00\u202e c", 100) == "a Bcc: b@example.org c"
    assert rules.one_line("a" * 400, 300) == "a" * 299 + "…"


# -- once, and nothing lost --------------------------------------------------------------------


def test_an_event_is_told_once_however_often_the_clock_ticks(cast: Cast) -> None:
    version_of(cast.blue, cast.mara)
    assert told() == 1
    assert told() == news.tell_pending() == 0
    assert Notification.objects.count() == 1


def test_a_crash_before_the_cursor_is_kept_loses_nothing_and_tells_nobody_twice(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.EMAIL_URL = "smtp://x"
    version_of(cast.blue, cast.mara)
    events.seal_pending()

    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("apps.core.work.enqueue", die)  # after the notifications were written
        with pytest.raises(Killed):
            news.tell_pending()
    assert (Notification.objects.count(), Delivery.objects.count()) == (0, 0)
    assert news.tell_pending() == 1
    assert (Notification.objects.count(), Delivery.objects.count()) == (1, 1)


def test_a_cursor_that_was_lost_tells_nobody_twice(cast: Cast, settings: Any) -> None:
    settings.EMAIL_URL, settings.SLACK_WEBHOOK_URL = "smtp://x", "https://hooks.example/x"
    version_of(cast.blue, cast.mara)
    told()
    NewsCursor.objects.all().delete()
    before = Notification.objects.count(), Delivery.objects.filter(title="wine 1 is ready").count()
    Notification.objects.filter(kind=Kind.TEAM_JOINED).delete()
    news.tell_pending()
    ready = Notification.objects.filter(kind=Kind.VERSION_READY).count()
    mails = Delivery.objects.filter(title="wine 1 is ready").count()
    assert (ready, mails) == before == (1, 2)


def test_an_event_that_commits_behind_a_later_one_is_told(cast: Cast) -> None:
    """Ids are taken early; the seal, which is given after the commit, is what is followed."""
    version_of(cast.blue, cast.mara)
    late = Event.objects.get(verb="version.ready")
    copy = {field.name: getattr(late, field.name) for field in Event._meta.concrete_fields}
    with write_once.suspended():
        late.delete()
    told()
    assert Notification.objects.count() == 0
    newest = EventSeal.objects.order_by("-seq").first()
    assert newest is not None
    Event.objects.create(**copy)  # its transaction ends only now, with its lower id
    told()
    assert who_was_told(Kind.VERSION_READY) == {"mara"}


@pytest.mark.parametrize("error", [KeyError("role"), AttributeError("get"), IndexError("arms")])
def test_an_event_that_nobody_can_read_does_not_silence_the_next(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(event: Event) -> list[rules.News]:
        raise error

    monkeypatch.setattr(rules, "RULES", {**rules.RULES, "version.uploaded": broken})
    version_of(cast.blue, cast.mara)
    told()
    assert who_was_told(Kind.VERSION_READY) == {"mara"}


def test_a_tick_without_news_writes_nothing(cast: Cast, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(2):
        news.tell_pending()


def test_more_events_than_one_step_are_all_told(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "STEP_EVENTS", 2)
    for _ in range(3):
        make_version(make_model(team=cast.blue), person_id=cast.mara.pk)
    assert told() == 3


# -- messages that leave -----------------------------------------------------------------------


def test_without_settings_nothing_leaves_the_installation(cast: Cast) -> None:
    version_of(cast.blue, cast.mara)
    told()
    assert Delivery.objects.count() == 0
    assert Work.objects.filter(name=news.DELIVER).count() == 0


def test_each_person_gets_one_mail_and_the_channel_one_post(cast: Cast, settings: Any) -> None:
    settings.EMAIL_URL, settings.SLACK_WEBHOOK_URL = "smtp://x", "https://hooks.example/x"
    asked(make_version(make_model("wine", team=cast.blue)), by=cast.mara)
    told()
    rows = Delivery.objects.all()
    mails = {one.person.username for one in rows.filter(channel="email") if one.person}
    assert mails == {"tom", "ute"}
    post = rows.get(channel="slack")
    assert post.person is None
    assert post.body.endswith("For: tom, ute")
    assert Work.objects.filter(name=news.DELIVER).count() == 3


def test_who_has_no_address_gets_no_mail(cast: Cast, settings: Any) -> None:
    settings.EMAIL_URL = "smtp://x"
    User.objects.filter(pk=cast.mara.pk).update(email="")
    version_of(cast.blue, cast.mara)
    told()
    assert who_was_told(Kind.VERSION_READY) == {"mara"}
    assert Delivery.objects.count() == 0


def test_the_channel_reads_of_a_role_by_name(cast: Cast, settings: Any) -> None:
    settings.SLACK_WEBHOOK_URL = "https://hooks.example/x"
    member = Membership.objects.get(user=cast.viewer, team=cast.blue)
    teams.change_role(member, role=Role.CONTRIBUTOR, actor=acting(cast.tom))
    told()
    assert Delivery.objects.get().title == "vera is contributor in the team Blue now"


def test_old_news_are_dropped_and_young_ones_stay(cast: Cast) -> None:
    version_of(cast.blue, cast.mara)
    told()
    assert news.drop_old(days=1) == 0
    assert news.drop_old(days=0, dry_run=True) == 1
    assert news.drop_old(days=0) == 1
    assert news.drop_old(days=0) == 0


# -- sign-ins --------------------------------------------------------------------------------------


def test_a_stolen_token_is_told_to_its_holder_and_to_platform_admins(cast: Cast) -> None:
    pair = sessions.sign_in("vera", PASSWORD)
    sessions.refresh(pair.refresh)
    with pytest.raises(InvalidToken):
        sessions.refresh(pair.refresh)
    told()
    assert who_was_told(Kind.SIGN_IN) == {"vera", "boss"}
    mine = Notification.objects.get(person=cast.viewer, kind=Kind.SIGN_IN)
    assert mine.url == "/admin/me/"


def test_a_lock_is_told_to_whom_it_locks_and_to_platform_admins(cast: Cast) -> None:
    for name in ("vera", "nobody"):
        for _ in range(5):
            with pytest.raises(WrongPassword):
                sessions.sign_in(name, "wrong")
    told()
    assert who_was_told(Kind.SIGN_IN) == {"vera", "boss"}
    assert Notification.objects.filter(kind=Kind.SIGN_IN).count() == 2


def test_a_disabled_person_is_told_nothing_of_the_own_sign_in(cast: Cast) -> None:
    events.record("user.locked_out", actor=SYSTEM, target=cast.viewer, failures=5, minutes=15)
    User.objects.filter(pk=cast.viewer.pk).update(is_active=False)
    told()
    assert who_was_told(Kind.SIGN_IN) == {"boss"}
