"""The record of predictions and its rollups.

On PostgreSQL the record is partitioned by day of ``ts``, which Django's own operations cannot make:
its state gets an ordinary model, the database gets the statements below. Going back drops the
record; there is no other way back.
"""

from datetime import datetime, timedelta, timezone

from django.db import migrations, models

# The unique index behind (ts, id) is the one that Django's state calls prediction_by_time.
POSTGRESQL_TABLE = """
CREATE TABLE "inference_prediction" (
    "id" uuid NOT NULL,
    "ts" timestamp with time zone NOT NULL,
    "model" varchar(200) NOT NULL,
    "environment" varchar(32) NOT NULL,
    "team_id" bigint NOT NULL,
    "version" integer NOT NULL,
    "release" integer NULL,
    "arm" varchar(32) NOT NULL,
    "variant" varchar(200) NOT NULL,
    "experiment" varchar(200) NOT NULL,
    "unit" varchar(200) NOT NULL,
    "key_id" varchar(64) NOT NULL,
    "user_id" bigint NULL,
    "source" varchar(32) NOT NULL,
    "status" varchar(64) NOT NULL,
    "rows" integer NOT NULL,
    "cached" boolean NOT NULL,
    "total_ms" double precision NOT NULL,
    "queue_ms" double precision NOT NULL,
    "inference_ms" double precision NOT NULL,
    "error" text NOT NULL,
    "request_id" varchar(128) NOT NULL,
    "client_id" varchar(200) NOT NULL,
    "seq" bigint NOT NULL,
    "writer" varchar(100) NOT NULL,
    "inputs" jsonb NULL,
    "outputs" jsonb NULL,
    CONSTRAINT "prediction_by_time" PRIMARY KEY ("ts", "id")
) PARTITION BY RANGE ("ts");
CREATE INDEX "prediction_of_team" ON "inference_prediction" ("team_id", "ts");
CREATE INDEX "prediction_of_model" ON "inference_prediction" ("model", "ts");
CREATE INDEX "prediction_of_version" ON "inference_prediction" ("model", "version", "ts");
CREATE INDEX "prediction_of_key" ON "inference_prediction" ("key_id", "ts");
CREATE INDEX "prediction_of_status" ON "inference_prediction" ("status", "ts");
CREATE TABLE "inference_prediction_default" PARTITION OF "inference_prediction" DEFAULT;
"""

# So that the first rows find their day; the hourly task goes on from here.
FIRST_DAYS = 8


def make_table(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        schema_editor.create_model(apps.get_model("inference", "Prediction"))
        return
    schema_editor.execute(POSTGRESQL_TABLE)
    today = datetime.now(timezone.utc).date()
    for day in (today + timedelta(days=n) for n in range(FIRST_DAYS)):
        schema_editor.execute(
            f'CREATE TABLE "inference_prediction_{day:%Y%m%d}" PARTITION OF "inference_prediction" '
            f"FOR VALUES FROM ('{day} 00:00:00+00') TO ('{day + timedelta(days=1)} 00:00:00+00')"
        )


def drop_table(apps, schema_editor):
    schema_editor.execute('DROP TABLE "inference_prediction"')


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="PredictionDay",
            fields=[("day", models.DateField(primary_key=True, serialize=False))],
            options={"managed": False, "default_permissions": ()},
        ),
        migrations.CreateModel(
            name="PredictionRejected",
            fields=[
                ("sha256", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("payload", models.BinaryField()),
                ("error", models.TextField()),
                ("at", models.DateTimeField(db_index=True)),
            ],
            options={"verbose_name": "rejected prediction"},
        ),
        migrations.CreateModel(
            name="KeyHour",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("count", models.BigIntegerField(default=0)),
                ("rows", models.BigIntegerField(default=0)),
                ("cache_hits", models.BigIntegerField(default=0)),
                ("latency_us", models.BigIntegerField(default=0)),
                ("histogram", models.JSONField(default=dict)),
                ("hour", models.DateTimeField()),
                ("key_id", models.CharField(max_length=64)),
                ("model", models.CharField(max_length=200)),
                ("version", models.IntegerField()),
                ("errors", models.JSONField(default=dict)),
            ],
            options={
                "indexes": [models.Index(fields=["key_id", "hour"], name="hour_of_key")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("hour", "key_id", "model", "version"), name="one_row_per_key_hour"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="PredictionMinute",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("count", models.BigIntegerField(default=0)),
                ("rows", models.BigIntegerField(default=0)),
                ("cache_hits", models.BigIntegerField(default=0)),
                ("latency_us", models.BigIntegerField(default=0)),
                ("histogram", models.JSONField(default=dict)),
                ("minute", models.DateTimeField()),
                ("model", models.CharField(max_length=200)),
                ("environment", models.CharField(max_length=32)),
                ("version", models.IntegerField()),
                ("arm", models.CharField(max_length=32)),
                ("status", models.CharField(max_length=64)),
                ("errors", models.BigIntegerField(default=0)),
            ],
            options={
                "indexes": [models.Index(fields=["model", "minute"], name="minute_of_model")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("minute", "model", "environment", "version", "arm", "status"),
                        name="one_row_per_minute",
                    )
                ],
            },
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="Prediction",
                    fields=[
                        ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                        ("ts", models.DateTimeField(verbose_name="time")),
                        ("model", models.CharField(max_length=200)),
                        ("environment", models.CharField(max_length=32)),
                        ("team_id", models.BigIntegerField()),
                        ("version", models.IntegerField()),
                        ("release", models.IntegerField(null=True)),
                        ("arm", models.CharField(max_length=32)),
                        ("variant", models.CharField(max_length=200)),
                        ("experiment", models.CharField(max_length=200)),
                        ("unit", models.CharField(max_length=200)),
                        ("key_id", models.CharField(max_length=64, verbose_name="key")),
                        ("user_id", models.BigIntegerField(null=True, verbose_name="user")),
                        ("source", models.CharField(max_length=32)),
                        ("status", models.CharField(max_length=64)),
                        ("rows", models.IntegerField()),
                        ("cached", models.BooleanField()),
                        ("total_ms", models.FloatField(verbose_name="total, ms")),
                        ("queue_ms", models.FloatField(verbose_name="queue, ms")),
                        ("inference_ms", models.FloatField(verbose_name="inference, ms")),
                        ("error", models.TextField()),
                        ("request_id", models.CharField(max_length=128, verbose_name="request id")),
                        ("client_id", models.CharField(max_length=200, verbose_name="client's id")),
                        ("seq", models.BigIntegerField(verbose_name="number of its writer")),
                        ("writer", models.CharField(max_length=100)),
                        ("inputs", models.JSONField(null=True)),
                        ("outputs", models.JSONField(null=True)),
                    ],
                    options={
                        "indexes": [
                            models.Index(fields=["ts", "id"], name="prediction_by_time"),
                            models.Index(fields=["team_id", "ts"], name="prediction_of_team"),
                            models.Index(fields=["model", "ts"], name="prediction_of_model"),
                            models.Index(fields=["model", "version", "ts"], name="prediction_of_version"),
                            models.Index(fields=["key_id", "ts"], name="prediction_of_key"),
                            models.Index(fields=["status", "ts"], name="prediction_of_status"),
                        ],
                    },
                ),
            ],
        ),
        migrations.RunPython(make_table, drop_table),
    ]
