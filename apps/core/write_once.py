"""The audit record is written once: triggers refuse every change of it, whoever asks.

They are made after each ``migrate`` (an SQLite table that a migration rebuilds loses its own). Only
the tables' owner may suspend them for the length of one transaction, as the purge does; the role
of the application is not the owner (``manage.py database_roles``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

TABLES = ("core_event", "core_eventseal", "core_auditanchor", "core_auditpurge")
_REFUSAL = "The audit record is written once; nothing of it is changed or removed."
# With its own search path: nobody can slip another function or operator under it.
_FUNCTION = f"""
CREATE OR REPLACE FUNCTION core_write_once() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner oid := (SELECT relowner FROM pg_class WHERE oid = TG_RELID);
BEGIN
    IF current_setting('mlplatform.audit', true) = 'purge'
        AND pg_has_role(current_user, owner, 'USAGE')
    THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'insufficient_privilege';
END
$$
"""  # noqa: S608  # nosec B608 - its one value is the sentence above
_SQLITE_TRIGGER = (
    "CREATE TRIGGER {name} BEFORE {what} ON {table} BEGIN SELECT RAISE(ABORT, '{why}'); END"
)


def ensure(**_: Any) -> None:
    """Make the triggers that are not there; called after each ``migrate``."""
    there = set(connection.introspection.table_names())
    wanted = [table for table in TABLES if table in there]
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            _ensure_on_postgres(cursor, wanted)
        elif connection.vendor == "sqlite":
            _ensure_on_sqlite(cursor, wanted)


def missing() -> list[str]:
    """Return the tables that no trigger guards."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            guarded = _guarded(cursor)
        else:
            names = set(_sqlite_triggers(cursor))
            guarded = {one for one in TABLES if {f"{one}_update", f"{one}_delete"} <= names}
    return [table for table in TABLES if table not in guarded]


@contextmanager
def suspended() -> Iterator[None]:
    """Let the owner change the record inside this block, which is one transaction.

    The purge does, and tests that tamper on purpose. For any other role the triggers stay.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            made = _sqlite_triggers(cursor)
            for name in made:
                cursor.execute(f'DROP TRIGGER "{name}"')
            yield
            for sql in made.values():
                cursor.execute(sql)
            return
        cursor.execute("SELECT set_config('mlplatform.audit', 'purge', true)")
        yield
        # A setting of the transaction would outlive a savepoint.
        cursor.execute("SELECT set_config('mlplatform.audit', '', true)")


def _ensure_on_postgres(cursor: Any, wanted: list[str]) -> None:
    guarded = _guarded(cursor)
    missing = [table for table in wanted if table not in guarded]
    if not missing:
        return
    cursor.execute(_FUNCTION)
    for table in missing:
        cursor.execute(f'DROP TRIGGER IF EXISTS write_once ON "{table}"')
        cursor.execute(
            f'CREATE TRIGGER write_once BEFORE UPDATE OR DELETE OR TRUNCATE ON "{table}" '
            "FOR EACH STATEMENT EXECUTE FUNCTION core_write_once()"
        )


def _guarded(cursor: Any) -> set[str]:
    cursor.execute(
        """
        SELECT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE t.tgname = 'write_once' AND t.tgenabled IN ('O', 'A')
          AND c.relnamespace = current_schema()::regnamespace
        """
    )
    return {name for (name,) in cursor.fetchall()}


def _ensure_on_sqlite(cursor: Any, wanted: list[str]) -> None:
    made = _sqlite_triggers(cursor)
    for table in wanted:
        for what in ("UPDATE", "DELETE"):
            name = f"{table}_{what.lower()}"
            if name not in made:
                cursor.execute(
                    _SQLITE_TRIGGER.format(name=name, what=what, table=table, why=_REFUSAL)
                )


def _sqlite_triggers(cursor: Any) -> dict[str, str]:
    cursor.execute("SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger'")
    return {name: sql for name, table, sql in cursor.fetchall() if table in TABLES}
