"""The application's role on PostgreSQL does its work, and cannot rewrite the audit record."""

import secrets
from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from pytest_django import Settings

from apps.accounts.snapshot import Role
from apps.core import anchors, chain, events, roles, write_once
from apps.core.events import Actor
from apps.core.models import Event, EventSeal
from apps.inference import journal_db, partitions
from apps.inference.journal_db import Shipped
from apps.inference.models import Prediction
from tests.factories.accounts import make_key, make_member, make_team
from tests.factories.inference import record, spooled
from tests.factories.registry import make_release, make_version

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        "postgresql" not in settings.DATABASES["default"]["ENGINE"], reason="only PostgreSQL"
    ),
]
SYSTEM = Actor.system()
KEYS = {"core_eventseal": "seq"}


def connect(user: str, password: str) -> None:
    connection.close()
    connection.settings_dict.update(USER=user, PASSWORD=password)


def do(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.fixture
def role() -> Iterator[tuple[str, str]]:
    """A role of this test alone: the server's roles are seen by all databases."""
    name, password = f"app_{secrets.token_hex(4)}", secrets.token_hex(8)
    owner = connection.settings_dict["USER"], connection.settings_dict["PASSWORD"]
    do(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    yield name, password
    connect(*owner)
    do(f"REASSIGN OWNED BY {name} TO {owner[0]}")
    do(f"DROP OWNED BY {name}")
    do(f"DROP ROLE {name}")


@pytest.fixture
def app(role: tuple[str, str]) -> str:
    """Connect as the application's role for the rest of the test."""
    call_command("database_roles", app_role=role[0])
    connect(*role)
    return role[0]


def refused(sql: str) -> str:
    with pytest.raises(DatabaseError) as error, transaction.atomic():
        do(sql)
    return str(error.value)


def test_the_role_adds_to_the_record_and_changes_nothing_of_it(app: str) -> None:
    events.record("thing.changed", actor=SYSTEM, target=EventSeal(seq=1))
    assert events.seal_pending() == 1
    assert chain.verify_chain().sealed == 1
    for table in write_once.TABLES:
        for sql in (
            f"UPDATE {table} SET {KEYS.get(table, 'id')} = 1",
            f"DELETE FROM {table}",
            f"TRUNCATE {table} CASCADE",
        ):
            assert "permission denied" in refused(sql), sql
        for sql in (
            f"ALTER TABLE {table} DISABLE TRIGGER ALL",
            f"ALTER TABLE {table} OWNER TO {app}",
            f"ALTER TABLE {table} ADD COLUMN x integer",
            f"DROP TRIGGER write_once ON {table}",
            f"DROP TABLE {table} CASCADE",
        ):
            assert "must be owner" in refused(sql), sql
    assert "owner" in refused("DROP FUNCTION core_write_once() CASCADE")
    assert "permission denied" in refused("INSERT INTO core_auditpurge (from_seq) VALUES (1)")


def test_a_setting_of_its_session_does_not_open_the_record(app: str) -> None:
    """Even a role that was granted too much meets the triggers."""
    event = events.record("thing.changed", actor=SYSTEM, target=EventSeal(seq=1))
    do("SELECT set_config('mlplatform.audit', 'purge', false)")
    refused("DELETE FROM core_event")
    with pytest.raises(chain.NotOwner, match="MLP_MIGRATE_DATABASE_URL"):
        chain.purge_events(timedelta(days=400), actor=SYSTEM)
    assert Event.objects.filter(pk=event.pk).exists()


def role_of_the_tables() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'core_event'")
        return str(cursor.fetchone()[0])


def test_a_role_with_too_many_rights_is_still_held_by_the_triggers(role: tuple[str, str]) -> None:
    call_command("database_roles", app_role=role[0])
    do(f"GRANT ALL ON core_event, core_eventseal TO {role[0]}")
    events.record("thing.changed", actor=SYSTEM, target=EventSeal(seq=1))
    connect(*role)
    do("SELECT set_config('mlplatform.audit', 'purge', false)")
    for sql in ("UPDATE core_event SET reason = ''", "DELETE FROM core_event"):
        assert "written once" in refused(sql)
    assert "written once" in refused("TRUNCATE core_event CASCADE")


def test_people_models_keys_and_releases_work_as_the_role(app: str) -> None:
    team = make_team("blue")
    make_key(team, make_member(team, Role.CONTRIBUTOR))
    make_release(make_version())
    assert Event.objects.filter(verb="release.live").exists()
    assert Event.objects.filter(verb="key.issued").exists()
    events.seal_everything()
    assert chain.verify_chain().first_break is None


def test_predictions_are_shipped_and_their_days_made_and_dropped_as_the_role(
    app: str, tmp_path: Path
) -> None:
    today = timezone.now().astimezone(UTC).date()
    partitions.make_partitions(days_ahead=1)
    spooled(tmp_path, [record(), record()])
    assert journal_db.ship(tmp_path) == Shipped(rows=2, segments=1)
    assert Prediction.objects.count() == 2
    old = today - timedelta(days=200)
    assert partitions.make_partition(old)
    partitions.detach_partition(old)
    assert partitions.drop_detached(old) == 0


def test_days_that_were_there_before_are_the_roles_too(role: tuple[str, str]) -> None:
    today = timezone.now().astimezone(UTC).date()
    old, gone = today - timedelta(days=300), today - timedelta(days=301)
    for day in (old, gone):
        partitions.make_partition(day)
    partitions.detach_partition(gone)
    call_command("database_roles", app_role=role[0])
    connect(*role)
    partitions.detach_partition(old)
    assert partitions.drop_detached(old) == 0
    assert partitions.drop_detached(gone) == 0


def test_the_owner_still_migrates_and_purges(role: tuple[str, str]) -> None:
    call_command("database_roles", app_role=role[0])
    call_command("migrate", verbosity=0)
    assert chain.purge_events(timedelta(days=400), actor=SYSTEM).count == 0


def test_a_second_run_changes_nothing(role: tuple[str, str], capsys: Any) -> None:
    call_command("database_roles", app_role=role[0])
    assert "handed to" in capsys.readouterr().out
    call_command("database_roles", app_role=role[0])
    assert "handed to" not in capsys.readouterr().out


def test_tables_that_the_role_made_are_taken_over(role: tuple[str, str]) -> None:
    """An installation with one role becomes one with two."""
    do(f"ALTER TABLE core_event OWNER TO {role[0]}")
    call_command("database_roles", app_role=role[0])
    assert role_of_the_tables() == connection.settings_dict["USER"]
    connect(*role)
    assert not roles.owns_the_record()


def test_a_role_that_owns_the_schema_could_drop_the_record_and_is_named(
    role: tuple[str, str],
) -> None:
    call_command("database_roles", app_role=role[0])
    do(f"ALTER SCHEMA public OWNER TO {role[0]}")
    with pytest.raises(CommandError, match="owns the schema"):
        call_command("database_roles", app_role=role[0])
    connect(*role)
    assert not roles.owns_the_record()
    assert "core.W003" in {one.id for one in run_checks(include_deployment_checks=True)}


@pytest.mark.parametrize("name", ["nobody_of_this_name", 'quoted"; DROP TABLE core_event'])
def test_a_role_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(CommandError, match="There is no role"):
        call_command("database_roles", app_role=name)


def test_the_deployment_check_warns_while_the_application_owns_its_record(
    role: tuple[str, str], settings: Settings
) -> None:
    assert "core.W003" in {one.id for one in run_checks(include_deployment_checks=True)}
    call_command("database_roles", app_role=role[0])
    connect(*role)
    settings.AUDIT_ANCHOR = "s3://bucket/head"
    found = {str(one.id) for one in run_checks(include_deployment_checks=True)}
    assert not {one for one in found if one.startswith("core.W00")}


def test_anchors_are_noted_as_the_role(app: str, tmp_path: Path, settings: Settings) -> None:
    settings.AUDIT_ANCHOR = f"file://{tmp_path}"
    events.record("thing.changed", actor=SYSTEM, target=EventSeal(seq=1))
    events.seal_pending()
    assert anchors.write() is not None
