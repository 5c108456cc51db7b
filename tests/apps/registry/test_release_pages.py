"""The pages on which people release, approve, roll back, and ask what served when."""

import re
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import Settings

from apps.accounts.models import Team, User
from apps.accounts.snapshot import Role
from apps.registry.models import Endpoint, ModelVersion, Release
from apps.registry.services import releases
from apps.registry.states import Environment, ReleaseState
from tests.factories.accounts import PASSWORD, make_member, make_team, make_user
from tests.factories.registry import (
    SYSTEM,
    endpoint_of,
    make_model,
    make_release,
    make_version,
)

pytestmark = pytest.mark.django_db


def browser(user: User) -> Client:
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client = Client()
    assert client.login(username=user.username, password=PASSWORD)
    return client


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def version(team: Team) -> ModelVersion:
    """Version 1 of wine, live in production."""
    found = make_version(make_model("wine", team=team))
    make_release(found)
    return found


@pytest.fixture
def second(version: ModelVersion) -> ModelVersion:
    return make_version(version.model)


@pytest.fixture
def boss(team: Team) -> Client:
    return browser(make_member(team, Role.MAINTAINER, "mara"))


def page(kind: str, pk: int) -> str:
    return reverse(f"admin:registry_{kind}_change", args=[pk])


def release_page(version: ModelVersion, **asked: object) -> str:
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    return f"{reverse('admin:registry_modelversion_release', args=[version.pk])}?{query}"


def rollback_page(release: Release) -> str:
    return reverse("admin:registry_release_roll_back", args=[release.pk])


def wish(**changed: Any) -> dict[str, Any]:
    return {"environment": "production", "share": 100, "reason": "better"} | changed


def text_of(reply: Any) -> str:
    """The page's words, without its markup."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", reply.content.decode()))


def act(client: Client, name: str, release: Release, *, reason: str) -> Any:
    url = reverse("admin:registry_release_decide", args=[release.pk])
    return client.post(url, {"decision": name, "reason": reason}, follow=True)


def live_of(version: ModelVersion) -> Release:
    return Release.objects.get(endpoint__model=version.model, state=ReleaseState.LIVE)


def shares(release: Release) -> dict[int, float]:
    return {arm.version: round(arm.share, 6) for arm in release.typed_arms()}


# -- release -------------------------------------------------------------------------------------


def test_the_page_says_what_changes_and_what_was_checked(
    boss: Client, second: ModelVersion
) -> None:
    text = text_of(boss.get(release_page(second)))
    assert "Moves 100 % of the traffic from version 1 to version 2." in text
    for title in ("Validated.", "Signature.", "Metrics.", "Memory.", "Runtime.", "Who decides."):
        assert title in text
    assert "Release to production" in text


def test_a_version_is_released_and_its_release_followed(boss: Client, second: ModelVersion) -> None:
    reply = boss.post(release_page(second), wish(expected_release=1))
    made = live_of(second)
    assert reply.headers["Location"] == page("release", made.pk)
    assert (made.number, made.reason, made.actor_name) == (2, "better", "mara")
    text = boss.get(page("release", made.pk)).content.decode()
    assert reverse("inference-pages:rollout", args=["wine", "production", 2]) in text


def test_a_canary_leaves_the_rest_to_what_serves(boss: Client, second: ModelVersion) -> None:
    text = text_of(boss.get(release_page(second, share=10)))
    assert "Moves 10 % of the traffic from version 1 to version 2." in text
    boss.post(release_page(second), wish(share=10, expected_release=1))
    assert shares(live_of(second)) == {1: 0.9, 2: 0.1}


def test_the_preview_comes_alone_when_the_form_changes(boss: Client, second: ModelVersion) -> None:
    reply = boss.get(release_page(second, environment="staging"), headers={"HX-Request": "true"})
    text = reply.content.decode()
    assert "<html" not in text
    assert "Release to staging" in text
    assert "Nothing serves here now; version 2 starts to answer." in text


def test_the_first_release_takes_everything(boss: Client, second: ModelVersion) -> None:
    asked = {"environment": "staging", "share": 50}
    text = boss.get(release_page(second, **asked)).content.decode()
    assert "choose 100 %" in text
    assert "disabled" in text
    reply = boss.post(release_page(second), wish(**asked))
    assert reply.status_code == 400
    assert Release.objects.count() == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"reason": " "}, "Say why"),
        ({"share": 0}, "At least 1 %"),
        ({"share": 101}, "At most 100 %"),
        ({"share": "much"}, "whole number"),
        ({"environment": "moon"}, "not one of the available choices"),
    ],
)
def test_what_is_wrong_is_said_at_the_field_and_nothing_is_released(
    boss: Client, second: ModelVersion, changed: dict[str, Any], said: str
) -> None:
    reply = boss.post(release_page(second), wish(**changed))
    assert reply.status_code == 400
    assert said in reply.content.decode()
    assert Release.objects.count() == 1


def test_a_check_that_blocks_disables_the_button_and_says_why(
    boss: Client, second: ModelVersion
) -> None:
    ModelVersion.objects.filter(pk=second.pk).update(state="archived")
    text = boss.get(release_page(second)).content.decode()
    assert re.search(r"<button[^>]*disabled", text)
    assert "version 2 is archived" in text


def test_the_second_of_two_people_is_told_on_the_form(
    boss: Client, team: Team, second: ModelVersion
) -> None:
    tom = browser(make_member(team, Role.MAINTAINER, "tom"))
    seen = re.search(
        r'name="expected_release" value="(\d+)"', boss.get(release_page(second)).content.decode()
    )
    assert seen is not None
    tom.post(release_page(second), wish(reason="mine", expected_release=seen[1]))
    third = make_version(second.model)
    reply = boss.post(release_page(third), wish(expected_release=seen[1]))
    assert reply.status_code == 409
    text = text_of(reply)
    assert "Release 2 is live now, you expected 1." in text
    assert "better" in text  # what was typed is not lost
    assert "Moves 100 % of the traffic from version 2 to version 3." in text
    assert live_of(second).reason == "mine"


@pytest.mark.skipif(connection.vendor == "sqlite", reason="the in-memory test database is one")
@pytest.mark.django_db(transaction=True)
def test_two_people_who_press_at_once_cannot_both_win(
    team: Team, version: ModelVersion, second: ModelVersion
) -> None:
    third = make_version(version.model)
    people = [browser(make_member(team, Role.MAINTAINER)) for _ in range(2)]
    start = threading.Barrier(2)
    statuses: list[int] = []

    def press(client: Client, wanted: ModelVersion) -> None:
        try:
            start.wait(30)
            reply = client.post(release_page(wanted), wish(expected_release=1))
            statuses.append(reply.status_code)
        finally:
            connection.close()

    pairs = zip(people, (second, third), strict=True)
    threads = [threading.Thread(target=press, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [302, 409]
    assert Release.objects.count() == 2


def test_who_may_only_ask_asks_where_approval_is_needed_and_else_is_told_whom_to_ask(
    team: Team, boss: Client, second: ModelVersion, settings: Settings
) -> None:
    client = browser(make_member(team, Role.CONTRIBUTOR, "carl"))
    text = text_of(client.get(release_page(second)))
    assert "Your role does not suffice to release to production. Ask mara to do it." in text
    reply = client.post(release_page(second), wish(expected_release=1))
    assert reply.status_code == 403
    assert Release.objects.count() == 1
    settings.REQUIRE_APPROVAL = True
    assert "Ask for release to production" in text_of(client.get(release_page(second)))
    client.post(release_page(second), wish(expected_release=1))
    assert Release.objects.get(number=2).state == ReleaseState.AWAITING_APPROVAL


@pytest.mark.parametrize(
    ("role", "status"), [(None, 404), (Role.VIEWER, 403), (Role.CONTRIBUTOR, 200)]
)
def test_a_stranger_finds_no_such_page_and_a_viewer_may_not(
    role: Role | None, status: int, second: ModelVersion, team: Team
) -> None:
    person = make_member(team, role) if role else make_member(make_team("red"), Role.MAINTAINER)
    client = browser(person)
    assert client.get(release_page(second)).status_code == status
    if status != 200:
        assert client.post(release_page(second), wish()).status_code == status
        assert Release.objects.count() == 1


def test_nobody_is_sent_to_sign_in(second: ModelVersion) -> None:
    first = Release.objects.get()
    for url in (release_page(second), rollback_page(first)):
        assert "/login/" in Client().get(url).headers["Location"]


# -- roll back -----------------------------------------------------------------------------------


@pytest.fixture
def replaced(second: ModelVersion) -> Release:
    """Release 1, after release 2 took over."""
    make_release(second)
    return Release.objects.get(number=1)


def test_an_endpoint_is_rolled_back_from_its_page(boss: Client, replaced: Release) -> None:
    text = boss.get(page("endpoint", replaced.endpoint_id)).content.decode()
    assert rollback_page(replaced) in text
    text = text_of(boss.get(rollback_page(replaced)))
    assert "Moves 100 % of the traffic from version 2 to version 1." in text
    reply = boss.post(rollback_page(replaced), {"reason": "worse", "expected_release": 2})
    live = Release.objects.get(state=ReleaseState.LIVE)
    assert reply.headers["Location"] == page("release", live.pk)
    assert (live.number, live.reason, live.rolled_back_to) == (3, "worse", replaced)


def test_roll_back_is_offered_only_where_an_older_release_served(
    boss: Client, version: ModelVersion
) -> None:
    first = Release.objects.get()
    shown = page("endpoint", endpoint_of(version.model).pk)
    assert "Roll back" not in boss.get(shown).content.decode()
    text = boss.get(rollback_page(first)).content.decode()
    assert "is live already" in text
    assert re.search(r"<button[^>]*disabled", text)
    make_release(make_version(version.model))
    assert "Roll back to release 1" in boss.get(shown).content.decode()


def test_what_serves_alone_is_not_offered_for_release_again(
    boss: Client, version: ModelVersion
) -> None:
    shown = page("endpoint", endpoint_of(version.model).pk)
    assert "Release version 1" not in boss.get(shown).content.decode()
    make_version(version.model)
    assert "Release version 2" in boss.get(shown).content.decode()


def test_a_roll_back_of_something_else_than_was_seen_is_refused_on_the_form(
    boss: Client, replaced: Release, second: ModelVersion
) -> None:
    make_release(make_version(second.model))
    reply = boss.post(rollback_page(replaced), {"reason": "worse", "expected_release": 2})
    assert reply.status_code == 409
    assert "Release 3 is live now, you expected 2." in text_of(reply)


@pytest.mark.parametrize(
    ("role", "status"),
    [(None, 404), (Role.VIEWER, 403), (Role.CONTRIBUTOR, 403), (Role.MAINTAINER, 200)],
)
def test_who_may_roll_production_back(
    role: Role | None, status: int, replaced: Release, team: Team
) -> None:
    person = make_member(team, role) if role else make_member(make_team("red"), Role.MAINTAINER)
    client = browser(person)
    assert client.get(rollback_page(replaced)).status_code == status
    if status != 200:
        assert client.post(rollback_page(replaced), {"reason": "x"}).status_code == status
        assert Release.objects.count() == 2
        endpoint = client.get(page("endpoint", replaced.endpoint_id))
        assert "Roll back to release" not in endpoint.content.decode()


# -- the approval queue --------------------------------------------------------------------------


@pytest.fixture
def waiting(team: Team, second: ModelVersion, settings: Settings) -> Release:
    """Release 2 of wine, asked for by anna, a maintainer."""
    settings.REQUIRE_APPROVAL = True
    anna = make_member(team, Role.MAINTAINER, "anna")
    return releases.make_release(
        endpoint_of(second.model),
        version=2,
        reason="please",
        actor=SYSTEM,
        person_id=anna.pk,
    )


def test_the_queue_shows_those_that_wait_first_and_all_on_demand(
    boss: Client, waiting: Release
) -> None:
    url = reverse("admin:registry_release_changelist")
    text = boss.get(url).content.decode()
    assert page("release", waiting.pk) in text
    first = Release.objects.get(number=1)
    assert page("release", first.pk) not in text
    assert page("release", first.pk) in boss.get(f"{url}?state=all").content.decode()
    assert "version 1 → version 2" in text_of(boss.get(url))
    releases.reject(waiting, actor=SYSTEM, person_id=None, reason="no")
    assert page("release", first.pk) in boss.get(url).content.decode()


def test_the_menu_counts_what_awaits_the_callers_teams(boss: Client, waiting: Release) -> None:
    url = reverse("admin:registry_endpoint_changelist")
    stranger = browser(make_member(make_team("red"), Role.MAINTAINER))
    assert "1 awaiting approval" in text_of(boss.get(url))
    assert "awaiting approval" not in text_of(stranger.get(url))
    assert "1 awaiting approval" in text_of(browser(make_user(is_admin=True)).get(url))
    releases.reject(waiting, actor=SYSTEM, person_id=None, reason="no")
    assert "awaiting approval" not in text_of(boss.get(url))


def test_a_waiting_release_shows_what_it_changes_to_who_decides(
    boss: Client, waiting: Release
) -> None:
    text = text_of(boss.get(page("release", waiting.pk)))
    assert "Moves 100 % of the traffic from version 1 to version 2." in text
    assert "You may decide" in text
    assert "Your decision" in text
    assert "Approve release" in text
    assert "“please”" in text


def test_the_asker_is_told_who_decides_and_cannot(boss: Client, waiting: Release) -> None:
    anna = browser(User.objects.get(username="anna"))
    text = text_of(anna.get(page("release", waiting.pk)))
    assert "another person decides: mara, a platform admin" in text
    assert "Approve release" not in text
    assert "another person approves it" in text_of(act(anna, "approve", waiting, reason="me"))
    waiting.refresh_from_db()
    assert waiting.state == ReleaseState.AWAITING_APPROVAL
    act(anna, "reject", waiting, reason="changed my mind")
    waiting.refresh_from_db()
    assert waiting.state == ReleaseState.REJECTED


def test_a_waiting_release_is_approved_by_another_person_once(
    boss: Client, waiting: Release
) -> None:
    act(boss, "approve", waiting, reason="fine")
    waiting.refresh_from_db()
    assert (waiting.state, waiting.approver_name) == (ReleaseState.LIVE, "mara")
    assert waiting.decision_reason == "fine"
    assert "no longer waits for approval" in text_of(act(boss, "reject", waiting, reason="late"))
    waiting.refresh_from_db()
    assert waiting.state == ReleaseState.LIVE


@pytest.mark.parametrize(
    ("form", "said"),
    [({"decision": "approve", "reason": " "}, "Say why"), ({"reason": "x"}, "required")],
)
def test_a_decision_needs_its_reason_and_a_choice(
    boss: Client, waiting: Release, form: dict[str, str], said: str
) -> None:
    url = reverse("admin:registry_release_decide", args=[waiting.pk])
    assert said in text_of(boss.post(url, form, follow=True))
    assert boss.get(url).status_code == 405
    waiting.refresh_from_db()
    assert waiting.state == ReleaseState.AWAITING_APPROVAL


def test_an_approval_of_another_change_than_was_seen_is_refused(
    boss: Client, waiting: Release
) -> None:
    later = releases.make_release(
        waiting.endpoint, version=1, reason="back", actor=SYSTEM, person_id=waiting.requested_by_id
    )
    shown = boss.get(page("release", later.pk)).content.decode()
    assert 'name="expected_release" value="1"' in shown
    act(boss, "approve", waiting, reason="fine")
    url = reverse("admin:registry_release_decide", args=[later.pk])
    form = {"decision": "approve", "reason": "as seen", "expected_release": 1}
    said = text_of(boss.post(url, form, follow=True))
    assert "Release 2 is live now, you expected 1." in said
    later.refresh_from_db()
    assert later.state == ReleaseState.AWAITING_APPROVAL
    boss.post(url, form | {"expected_release": 2})
    later.refresh_from_db()
    assert later.state == ReleaseState.LIVE


def test_a_stranger_finds_no_such_request(waiting: Release) -> None:
    stranger = browser(make_member(make_team("red"), Role.MAINTAINER))
    assert act(stranger, "approve", waiting, reason="x").status_code == 404


def test_a_contributor_sees_the_request_and_cannot_decide(team: Team, waiting: Release) -> None:
    client = browser(make_member(team, Role.CONTRIBUTOR))
    text = text_of(client.get(page("release", waiting.pk)))
    assert "It waits for anna" not in text  # she asked
    assert "It waits for a platform admin" in text
    for name in ("approve", "reject"):
        assert act(client, name, waiting, reason="x").status_code == 403


def test_a_request_that_something_newer_overtook_is_not_offered_for_approval(
    boss: Client, waiting: Release, settings: Settings
) -> None:
    settings.REQUIRE_APPROVAL = False
    make_release(make_version(ModelVersion.objects.get(number=2).model))
    text = text_of(boss.get(page("release", waiting.pk)))
    assert "Release 3 went live after release 2 was asked for." in text
    assert "Approve release" not in text
    assert "Reject release" in text
    assert "Ask for a new release." in text_of(act(boss, "approve", waiting, reason="late"))
    waiting.refresh_from_db()
    assert waiting.state == ReleaseState.AWAITING_APPROVAL


# -- the time machine ----------------------------------------------------------------------------

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def past(replaced: Release) -> Endpoint:
    """Release 1 went live at noon, release 2 an hour later."""
    Release.objects.filter(number=1).update(decided=NOON)
    Release.objects.filter(number=2).update(decided=NOON + timedelta(hours=1))
    return replaced.endpoint


def then(client: Client, endpoint: Endpoint, at: str) -> str:
    return text_of(client.get(f"{page('endpoint', endpoint.pk)}?at={at}"))


def test_an_address_with_a_moment_shows_what_served_then(boss: Client, past: Endpoint) -> None:
    text = then(boss, past, "2026-03-01T12:30:00")
    assert "2026-03-01 12:30:00 UTC: release 1 served." in text
    assert "2026-03-01 13:00:00 UTC" in text  # until
    assert "nothing served" in then(boss, past, "2026-03-01T11:59:59")
    assert "release 2 served." in then(boss, past, "2026-03-01T13:00:00")
    assert "it serves still" in then(boss, past, "2026-03-01T13:00:00")


def test_a_moment_with_a_zone_is_turned_into_utc(boss: Client, past: Endpoint) -> None:
    assert "12:30:00 UTC: release 1 served." in then(boss, past, "2026-03-01T13:30:00%2B01:00")
    assert "12:30:00 UTC: release 1 served." in then(boss, past, "2026-03-01T13:30:00+01:00")


@pytest.mark.parametrize("at", ["yesterday", "2026-02-30T12:00", "%00", "9" * 50])
def test_a_moment_that_is_none_is_said_on_the_page(boss: Client, past: Endpoint, at: str) -> None:
    reply = boss.get(f"{page('endpoint', past.pk)}?at={at}")
    assert reply.status_code == 200
    assert "served." not in text_of(reply)


# -- what the pages cost -------------------------------------------------------------------------


def test_an_endpoints_page_costs_the_same_however_many_releases_there_are(
    boss: Client, version: ModelVersion
) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            boss.get(page("endpoint", endpoint_of(version.model).pk))
        return len(queries)

    make_release(make_version(version.model))
    cost()
    short = cost()
    for _ in range(4):
        make_release(make_version(version.model))
    assert cost() == short


def test_releases_of_all_environments_have_their_own_pages(
    boss: Client, version: ModelVersion
) -> None:
    make_release(version, Environment.STAGING)
    url = reverse("admin:registry_release_changelist")
    text = boss.get(f"{url}?environment=staging").content.decode()
    staging = Release.objects.get(endpoint__environment="staging")
    assert page("release", staging.pk) in text
    assert page("release", live_production(version).pk) not in text


def live_production(version: ModelVersion) -> Release:
    return Release.objects.get(
        endpoint__model=version.model, endpoint__environment="production", state=ReleaseState.LIVE
    )


def test_the_list_of_endpoints_says_what_serves_since_when_and_by_whom(
    boss: Client, version: ModelVersion
) -> None:
    url = reverse("admin:registry_endpoint_changelist")
    text = boss.get(f"{url}?serves=yes").content.decode()
    assert "version 1" in text
    assert 'id="cell-endpoint-rates-production:wine"' in text
    assert "staging" not in re.sub(r"<a[^>]*>.*?</a>", "", text)
    cells = f"{reverse('inference-pages:cells')}?what=endpoint-rates&ids=production:wine"
    assert 'id="cell-endpoint-rates-production:wine"' in boss.get(cells).content.decode()
    stranger = browser(make_member(make_team("red"), Role.MAINTAINER))
    assert "wine" not in stranger.get(cells).content.decode()
