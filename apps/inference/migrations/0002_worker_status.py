"""What serving processes run, told by the agents of their nodes.

Going back drops the table; agents then write a warning and go on, and fill it again when it is back.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("inference", "0001_predictions")]

    operations = [
        migrations.CreateModel(
            name="WorkerStatus",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("node", models.CharField(max_length=200)),
                ("worker", models.BigIntegerField()),
                ("generation", models.BigIntegerField()),
                ("state", models.CharField(max_length=16)),
                ("routes", models.JSONField(default=dict)),
                ("loaded", models.JSONField(default=list)),
                ("failures", models.JSONField(default=dict)),
                ("seen_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "worker's status",
                "verbose_name_plural": "workers' status",
                "constraints": [
                    models.UniqueConstraint(
                        fields=["node", "worker"], name="one_status_per_worker"
                    )
                ],
            },
        ),
    ]
