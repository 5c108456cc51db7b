"""Keys are changed and rotated by who holds or manages them; nobody gains a right by it."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.accounts.callers import caller_of
from apps.accounts.models import ApiKey, Team, User
from apps.accounts.selectors import DatabaseDirectory, key_body, token_verifier
from apps.accounts.services import keys
from apps.accounts.services.keys import KeyChange
from apps.accounts.snapshot import KeyBody, Role, key_from_json
from apps.core.errors import Conflict, Invalid, InvalidKey
from apps.core.models import Event, SnapshotEntry
from tests.apps.accounts.test_doors import Http
from tests.factories.accounts import (
    SYSTEM,
    api_key,
    bearer,
    make_key,
    make_member,
    make_team,
    make_user,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def ada(team: Team) -> User:
    return make_member(team, Role.CONTRIBUTOR, "ada")


def served(key: ApiKey) -> KeyBody:
    body = SnapshotEntry.objects.get(kind="key", key=key.pk).body
    assert body is not None
    return key_from_json(body)


def opens(text: str, *, hours: float = 0.0, address: str = "192.0.2.1") -> bool:
    """Whether a key is taken, some hours from now."""
    try:
        caller_of(
            {"x-api-key": text},
            directory=DatabaseDirectory(),
            verifier=token_verifier(),
            now=(timezone.now() + timedelta(hours=hours)).timestamp(),
            address=address,
        )
    except InvalidKey:
        return False
    return True


# -- changes -------------------------------------------------------------------------------------


def test_every_field_of_a_change_reaches_serving_and_history(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada, plan="standard")
    end = timezone.now().replace(microsecond=0) + timedelta(days=9)
    wish = {
        "name": "till",
        "scopes": ["predict", "logs:read"],
        "models": ["wine"],
        "environments": ["staging"],
        "networks": ["192.0.2.0/24", "::ffff:198.51.100.7/128"],
        "expires_at": end.isoformat(),
    }
    reply = Http(bearer(ada))("PATCH", f"keys/{key.pk}", wish)
    assert reply.status_code == 200, reply.content
    body = served(key)
    assert (body.scopes, body.models) == (("predict", "logs:read"), ("wine",))
    assert (body.environments, body.expires) == (("staging",), int(end.timestamp()))
    assert body.networks == ("192.0.2.0/24", "198.51.100.7/32")
    facts = Event.objects.get(verb="key.changed").facts
    assert set(facts["after"]) == set(wish)
    assert (facts["before"]["name"], facts["after"]["name"]) == ("a key", "till")


def test_a_change_leaves_the_rest_as_it_is(team: Team, ada: User) -> None:
    key, text = make_key(team, ada, models=("wine",), networks=["192.0.2.0/24"])
    before = served(key)
    keys.change_key(key, change=KeyChange(name="till"), actor=SYSTEM)
    assert served(key) == before
    assert opens(text)


def test_a_change_that_was_read_before_another_does_not_undo_it(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada)
    stale = ApiKey.objects.get(pk=key.pk)
    keys.change_key(key, change=KeyChange(models=["wine"]), actor=SYSTEM)
    keys.change_key(stale, change=KeyChange(networks=["192.0.2.0/24"]), actor=SYSTEM)
    assert (served(key).models, served(key).networks) == (("wine",), ("192.0.2.0/24",))


@pytest.mark.parametrize(
    ("wish", "pointer"),
    [
        ({"networks": ["192.0.2.0/24", "192.0.2.7/24"]}, "/networks/1"),
        ({"networks": ["here"]}, "/networks/0"),
        ({"networks": [f"192.0.2.{one}" for one in range(51)]}, "/networks"),
        ({"scopes": ["rule"]}, "/scopes/0"),
        ({"scopes": []}, "/scopes"),
        ({"environments": ["moon"]}, "/environments/0"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
        ({"owner": "eve"}, "/owner"),
        ({"team": "red"}, "/team"),
        ({"sha256": "0" * 64}, "/sha256"),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(
    team: Team, ada: User, wish: dict[str, Any], pointer: str
) -> None:
    key, _ = make_key(team, ada)
    reply = Http(bearer(ada))("PATCH", f"keys/{key.pk}", wish)
    assert reply.status_code == 400
    assert pointer in [one["pointer"] for one in reply.json()["errors"]]
    assert not Event.objects.filter(verb="key.changed").exists()


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_key_that_has_ended_is_neither_changed_nor_rotated(
    team: Team, ada: User, end: str
) -> None:
    key, _ = make_key(team, ada)
    if end == "revoked":
        keys.revoke_key(key, actor=SYSTEM)
    else:
        ApiKey.objects.filter(pk=key.pk).update(expires_at=timezone.now())
    http = Http(bearer(ada))
    for method, path, body in (
        ("PATCH", f"keys/{key.pk}", {"name": "new"}),
        ("POST", f"keys/{key.pk}/rotate", {}),
    ):
        reply = http(method, path, body)
        assert (reply.status_code, end in reply.json()["detail"]) == (409, True)
    assert ApiKey.objects.count() == 1


def test_a_key_gives_no_right_that_it_lacks(team: Team) -> None:
    boss = make_member(team, Role.MAINTAINER)
    _, text = make_key(
        team, boss, scopes=("admin:*", "predict"), models=("wine",), networks=["192.0.2.0/24"]
    )
    other, _ = make_key(team, boss, models=("wine",), networks=["192.0.2.8/29"])
    wider, _ = make_key(team, boss, models=("wine",))
    http = Http(api_key(text))
    http.client.defaults["REMOTE_ADDR"] = "192.0.2.1"

    def changed(key: ApiKey, **wish: Any) -> int:
        return int(http("PATCH", f"keys/{key.pk}", wish).status_code)

    assert changed(other, name="same rights") == 200
    assert changed(other, scopes=["logs:read"]) == 403
    assert changed(other, models=[]) == 403
    assert changed(other, networks=[]) == 403
    assert changed(other, networks=["192.0.3.0/24"]) == 403
    assert changed(other, networks=["192.0.2.0/25"]) == 200
    assert http("POST", f"keys/{wider.pk}/rotate", {}).status_code == 403
    assert http("POST", f"keys/{other.pk}/rotate", {}).status_code == 201


def test_a_platform_admins_key_is_only_revoked_by_maintainers(team: Team) -> None:
    mai, boss = make_member(team, Role.MAINTAINER), make_user("boss", is_admin=True)
    key, _ = make_key(team, boss)
    http = Http(bearer(mai))
    assert http("PATCH", f"keys/{key.pk}", {"scopes": ["admin:*"]}).status_code == 403
    assert http("POST", f"keys/{key.pk}/rotate", {}).status_code == 403
    assert http("DELETE", f"keys/{key.pk}").status_code == 204


def test_who_may_no_longer_make_keys_only_revokes_the_own(team: Team) -> None:
    viv = make_member(team, Role.VIEWER)
    key, _ = make_key(team, viv)
    http = Http(bearer(viv))
    assert http("PATCH", f"keys/{key.pk}", {"name": "x"}).status_code == 403
    assert http("POST", f"keys/{key.pk}/rotate", {}).status_code == 403
    assert http("DELETE", f"keys/{key.pk}").status_code == 204


# -- networks ------------------------------------------------------------------------------------


def test_a_key_opens_only_from_its_networks(team: Team, ada: User) -> None:
    _, text = make_key(team, ada, networks=["192.0.2.0/24", "2001:db8::/32"])
    assert opens(text, address="192.0.2.77")
    assert opens(text, address="2001:db8::1")
    assert not opens(text, address="198.51.100.1")


# -- rotation ------------------------------------------------------------------------------------


def test_both_keys_work_until_the_overlap_ends(team: Team, ada: User) -> None:
    key, old = make_key(team, ada, models=("wine",), networks=["192.0.2.0/24"], plan="trial")
    reply = Http(bearer(ada))("POST", f"keys/{key.pk}/rotate", {"overlap_hours": 3})
    assert reply.status_code == 201
    made = reply.json()
    successor = ApiKey.objects.get(pk=made["id"])
    assert made["replaces"] == key.pk
    assert made["key"] != old
    assert opens(old, hours=2.9)
    assert opens(made["key"], hours=2.9)
    assert not opens(old, hours=3.1)
    assert opens(made["key"], hours=3.1)
    now, then = served(successor), served(key)
    same = ("team_id", "owner_id", "scopes", "models", "environments", "plan", "networks")
    assert [getattr(now, one) for one in same] == [getattr(then, one) for one in same]
    assert served(key) == key_body(ApiKey.objects.get(pk=key.pk))


def test_the_successor_lives_as_long_as_the_key_was_to(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada)
    ApiKey.objects.filter(pk=key.pk).update(
        created=timezone.now() - timedelta(days=20), expires_at=timezone.now() + timedelta(days=10)
    )
    successor, _ = keys.rotate_key(key, actor=SYSTEM)
    left = successor.expires_at - timezone.now()
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)


def test_a_rotation_never_lengthens_a_life(team: Team, ada: User) -> None:
    key, text = make_key(team, ada)
    soon = timezone.now() + timedelta(hours=1)
    ApiKey.objects.filter(pk=key.pk).update(expires_at=soon)
    keys.rotate_key(key, actor=SYSTEM, overlap=timedelta(days=7))
    assert ApiKey.objects.get(pk=key.pk).expires_at == soon
    assert not opens(text, hours=1.1)
    later = KeyChange(expires_at=soon + timedelta(days=2))
    with pytest.raises(Conflict, match="sooner, not later"):
        keys.change_key(key, change=later, actor=SYSTEM)


def test_no_overlap_ends_the_old_key_at_once(team: Team, ada: User) -> None:
    key, text = make_key(team, ada)
    keys.rotate_key(key, actor=SYSTEM, overlap=timedelta(0))
    assert not opens(text)


def test_a_key_is_rotated_once_and_then_its_successor(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada)
    http = Http(bearer(ada))
    successor = http("POST", f"keys/{key.pk}/rotate", {}).json()
    again = http("POST", f"keys/{key.pk}/rotate", {})
    assert (again.status_code, "successor" in again.json()["detail"]) == (409, True)
    assert http("POST", f"keys/{successor['id']}/rotate", {}).status_code == 201


@pytest.mark.parametrize("hours", [-1, 169, "a day", None])
def test_the_overlap_is_a_week_at_the_most(team: Team, ada: User, hours: Any) -> None:
    key, _ = make_key(team, ada)
    reply = Http(bearer(ada))("POST", f"keys/{key.pk}/rotate", {"overlap_hours": hours})
    assert reply.status_code == 400
    with pytest.raises(Invalid):
        keys.rotate_key(key, actor=SYSTEM, overlap=timedelta(days=8))


def test_a_rotation_stands_in_both_histories_without_the_secret(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada)
    successor, text = keys.rotate_key(key, actor=SYSTEM)
    told = Event.objects.get(verb="key.rotated", target_id=key.pk)
    assert told.facts["successor"] == successor.pk
    assert told.facts["overlap_hours"] == 24
    assert Event.objects.get(verb="key.issued", target_id=successor.pk).facts["replaces"] == key.pk
    secret = text.rpartition("_")[2]
    assert secret not in repr([*Event.objects.values(), *SnapshotEntry.objects.values()])


# -- entries of an older writer ------------------------------------------------------------------


def test_keys_of_an_older_writer_get_their_plan_in_serving(team: Team, ada: User) -> None:
    key, _ = make_key(team, ada, plan="trial")
    entry = SnapshotEntry.objects.get(kind="key", key=key.pk)
    assert entry.body is not None
    del entry.body["plan"], entry.body["networks"]
    entry.save()
    generation = entry.generation
    assert keys.publish_stale() == 1
    entry.refresh_from_db()
    assert entry.generation > generation
    assert served(key).plan == "trial"
    assert keys.publish_stale() == 0
