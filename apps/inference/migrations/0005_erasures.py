"""Erasures, the way to all that one unit left, and a permission to read redacted fields.

The index is made without stopping those who write: on PostgreSQL first an empty one on the parent,
then one on each day beside the running inserts, which is then attached. A migration that was ended
half-way is begun again: what stands is kept, what was left invalid is made anew.
"""

from django.db import migrations, models

PARENT = "inference_prediction"
INDEX = "prediction_of_unit"
ON = "(\"unit\", \"ts\") WHERE \"unit\" > ''"


def make_index(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        schema_editor.execute(f'CREATE INDEX IF NOT EXISTS "{INDEX}" ON "{PARENT}" {ON}')
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(f'CREATE INDEX IF NOT EXISTS "{INDEX}" ON ONLY "{PARENT}" {ON}')
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass",
            [PARENT],
        )
        for (day,) in cursor.fetchall():
            _make_on(cursor, day.strip('"'))


def _make_on(cursor, day):
    """Make the index of one day, unless it has one that is attached."""
    cursor.execute(
        "SELECT c.relname, i.indisvalid, EXISTS "
        "(SELECT FROM pg_inherits h WHERE h.inhrelid = c.oid AND h.inhparent = %s::regclass) "
        "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = %s::regclass AND i.indpred IS NOT NULL",
        [INDEX, day],
    )
    found = cursor.fetchall()
    if any(attached for _, _, attached in found):
        return
    for name, is_valid, _ in found:
        if not is_valid:
            cursor.execute(f'DROP INDEX CONCURRENTLY "{name}"')
    name = f"{day}_unit_ts_idx"
    cursor.execute(f'CREATE INDEX CONCURRENTLY IF NOT EXISTS "{name}" ON "{day}" {ON}')
    cursor.execute(f'ALTER INDEX "{INDEX}" ATTACH PARTITION "{name}"')


def drop_index(apps, schema_editor):
    schema_editor.execute(f'DROP INDEX IF EXISTS "{INDEX}"')


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("inference", "0004_fill_traffic_spans")]

    operations = [
        migrations.CreateModel(
            name="Erasure",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("digests", models.JSONField(default=list)),
                ("unit", models.CharField(blank=True, max_length=200)),
                ("team_id", models.BigIntegerField(null=True)),
                ("model", models.CharField(blank=True, max_length=200)),
                ("before", models.DateTimeField(db_index=True)),
                ("actor_kind", models.CharField(max_length=16)),
                ("actor_id", models.CharField(blank=True, max_length=64)),
                ("actor_name", models.CharField(max_length=200)),
                ("reason", models.TextField(blank=True)),
                ("counts", models.JSONField(default=dict)),
                ("oldest", models.DateTimeField(null=True)),
                ("newest", models.DateTimeField(null=True)),
                ("finished", models.DateTimeField(null=True)),
            ],
            options={"default_permissions": ()},
        ),
        migrations.AlterModelOptions(
            name="prediction",
            options={"permissions": [("read_redacted", "Can read what is kept of redacted fields")]},
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AddIndex(
                    model_name="prediction",
                    index=models.Index(
                        condition=models.Q(("unit__gt", "")),
                        fields=["unit", "ts"],
                        name="prediction_of_unit",
                    ),
                ),
            ],
            database_operations=[migrations.RunPython(make_index, drop_index)],
        ),
    ]
