"""Two roles on PostgreSQL: one that owns the tables, and the application's, which cannot rewrite.

The application's role may do everything with ordinary tables, only read and add to the audit
record, and owns the partitioned tables, because beat makes and drops their partitions. All of it
can be done again at any time, for example after an upgrade made a table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from psycopg import sql

from apps.core.errors import Conflict, Invalid, NotFound
from apps.core.write_once import TABLES

# What the application may do with tables that are not like the others.
_SPECIAL = {
    **dict.fromkeys(TABLES, "SELECT, INSERT"),
    "core_auditpurge": "SELECT",
    "django_migrations": "SELECT",
}
_ORDINARY = "SELECT, INSERT, UPDATE, DELETE"
_IS_MINE = """
SELECT pg_has_role(current_user, relowner, 'USAGE') FROM pg_class
WHERE oid = to_regclass('core_event')
"""
# Who owns a schema may drop every table in it, whosever that is.
_OWNS_SCHEMA = """
SELECT pg_has_role({}, nspowner, 'USAGE') FROM pg_namespace WHERE nspname = current_schema()
"""


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    owner: str
    partitioned: bool


def owns_the_record() -> bool:
    """Whether the role of this connection could rewrite the audit record; False without tables."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute(_IS_MINE)
        row = cursor.fetchone()
    return bool(row and row[0])


def could_drop_the_record() -> bool:
    """Whether the role of this connection could remove the audit record with all its triggers."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        return bool(_value(cursor, _OWNS_SCHEMA.format("current_user")))


@transaction.atomic
def separate(app_role: str) -> tuple[str, ...]:
    """Take the tables over from the application's role and grant it what it needs.

    Args:
        app_role: A role that exists and may log in. The one of this connection becomes, or stays,
            the owner.

    Returns:
        What was done, in words.

    Raises:
        Invalid: This is no PostgreSQL, or the role is this one or may do everything anyway.
        NotFound: There is no such role, or no table yet.
        Conflict: The role owns the database or the schema, or this one may not act for it.
    """
    if connection.vendor != "postgresql":
        raise Invalid("Only PostgreSQL has roles; on SQLite whoever has the file has it all.")
    with connection.cursor() as cursor:
        me = _checked(cursor, app_role)
        said = list(_take_part(cursor, app_role, me))
        tables = list(_tables(cursor))
        if not any(one.name == "core_event" for one in tables):
            raise NotFound("There are no tables yet. Run `manage.py migrate` first.")
        _grant_around(cursor, app_role)
        said += _own(cursor, tables, app_role, me)
        for one in tables:
            _grant(cursor, one, app_role)
    ordinary = sum(1 for one in tables if not one.partitioned and one.name not in _SPECIAL)
    only = ", ".join(sorted(one.name for one in tables if one.name in TABLES))
    return (*said, f"{app_role} may use {ordinary} tables, and only read and add to {only}")


def _checked(cursor: Any, app_role: str) -> str:
    cursor.execute("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = %s", [app_role])
    row = cursor.fetchone()
    if row is None:
        raise NotFound(f"There is no role {app_role}. Make it: CREATE ROLE name LOGIN PASSWORD ...")
    me = _value(cursor, "SELECT current_user")
    if me == app_role:
        raise Invalid(
            "This connection is the application's. Set MLP_MIGRATE_DATABASE_URL to the address of "
            "another role, which will own the tables."
        )
    if row[0] or _value(cursor, "SELECT pg_has_role(%s, current_user, 'MEMBER')", app_role):
        raise Invalid(f"{app_role} is a superuser or a member of {me}, so no grant holds it.")
    owner = _value(
        cursor,
        "SELECT pg_has_role(%s, datdba, 'MEMBER') FROM pg_database "
        "WHERE datname = current_database()",
        app_role,
    )
    if owner:
        raise Conflict(
            f"{app_role} owns the database, and with it the schema. As a superuser: "
            f"ALTER DATABASE ... OWNER TO {me}"
        )
    if _value(cursor, _OWNS_SCHEMA.format("%s"), app_role):
        raise Conflict(
            f"{app_role} owns the schema and can drop what is in it. As a superuser: "
            f"ALTER SCHEMA ... OWNER TO {me}"
        )
    return str(me)


def _take_part(cursor: Any, app_role: str, me: str) -> Iterator[str]:
    """Be a member of the application's role: only so its tables can be migrated and handed over."""
    if _value(cursor, "SELECT pg_has_role(current_user, %s, 'MEMBER')", app_role):
        return
    try:
        with transaction.atomic():
            _do(cursor, "GRANT {} TO {}", app_role, me)
    except Exception as error:
        if getattr(error.__cause__, "sqlstate", "") != "42501":
            raise
        raise Conflict(
            f"{me} may not act for {app_role}. As a superuser: GRANT {app_role} TO {me}"
        ) from error
    yield f"{me} is a member of {app_role} now"


def _tables(cursor: Any) -> Iterator[_Table]:
    """Yield the tables of this schema; days that were taken out of a partitioned one are its."""
    cursor.execute(
        """
        SELECT c.relname, pg_get_userbyid(c.relowner), c.relkind = 'p' OR c.relispartition
            OR EXISTS (
                SELECT FROM pg_class p
                WHERE p.relkind = 'p' AND p.relnamespace = c.relnamespace
                  AND c.relname ~ ('^' || p.relname || '_[0-9]{8}$')
            )
        FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
        ORDER BY c.relname
        """
    )
    for row in cursor.fetchall():
        yield _Table(*row)


def _grant_around(cursor: Any, app_role: str) -> None:
    database, schema = (
        _value(cursor, "SELECT current_database()"),
        _value(cursor, "SELECT current_schema()"),
    )
    _do(cursor, "GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}", database, app_role)
    _do(cursor, "GRANT USAGE, CREATE ON SCHEMA {} TO {}", schema, app_role)
    _do(cursor, "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {} TO {}", schema, app_role)
    # Tables that the next upgrade makes work at once; this command then narrows what is special.
    for what, on in ((_ORDINARY, "TABLES"), ("USAGE, SELECT", "SEQUENCES")):
        _do(
            cursor,
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {{}} GRANT {what} ON {on} TO {{}}",
            schema,
            app_role,
        )


def _own(cursor: Any, tables: list[_Table], app_role: str, me: str) -> Iterator[str]:
    handed = [one.name for one in tables if one.partitioned and one.owner != app_role]
    taken = [one.name for one in tables if not one.partitioned and one.owner == app_role]
    for names, role, words in ((handed, app_role, "handed to"), (taken, me, "taken over by")):
        for name in names:
            _do(cursor, "ALTER TABLE {} OWNER TO {}", name, role)
        if names:
            yield f"{len(names)} tables were {words} {role}: {', '.join(names)}"
    cursor.execute("SELECT to_regproc('core_write_once') IS NOT NULL")
    if cursor.fetchone()[0]:
        _do(cursor, "ALTER FUNCTION {}() OWNER TO {}", "core_write_once", me)


def _grant(cursor: Any, table: _Table, app_role: str) -> None:
    if table.partitioned:  # its owner
        return
    rights = _SPECIAL.get(table.name, _ORDINARY)
    if table.name in _SPECIAL:
        _do(cursor, "REVOKE ALL ON {} FROM PUBLIC", table.name)
        _do(cursor, "REVOKE ALL ON {} FROM {}", table.name, app_role)
    _do(cursor, f"GRANT {rights} ON {{}} TO {{}}", table.name, app_role)


def _do(cursor: Any, words: str, *names: str) -> None:
    """Run a statement with names in it, each quoted."""
    statement = sql.SQL(words).format(*map(sql.Identifier, names))
    cursor.execute(statement.as_string(cursor.connection))


def _value(cursor: Any, query: str, *given: Any) -> Any:
    cursor.execute(query, given)
    return cursor.fetchone()[0]
