"""Traffic summed over five minutes, hours and days; going back drops the table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("inference", "0002_worker_status")]

    operations = [
        migrations.CreateModel(
            name="PredictionSpan",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("count", models.BigIntegerField(default=0)),
                ("rows", models.BigIntegerField(default=0)),
                ("cache_hits", models.BigIntegerField(default=0)),
                ("latency_us", models.BigIntegerField(default=0)),
                ("histogram", models.JSONField(default=dict)),
                ("start", models.DateTimeField()),
                ("seconds", models.IntegerField()),
                ("team_id", models.BigIntegerField()),
                ("model", models.CharField(max_length=200)),
                ("environment", models.CharField(max_length=32)),
                ("version", models.IntegerField()),
                ("status", models.CharField(max_length=64)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["model", "seconds", "start", "team_id"], name="span_of_model"),
                    models.Index(
                        fields=["seconds", "start", "team_id", "model", "count"], name="span_by_time"
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("start", "seconds", "team_id", "model", "environment", "version", "status"),
                        name="one_row_per_span",
                    )
                ],
            },
        ),
    ]
