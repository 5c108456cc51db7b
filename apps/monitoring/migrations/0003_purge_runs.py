"""A run of the purge has a name in events, and no table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("monitoring", "0002_start_with_todays_news")]

    operations = [
        migrations.CreateModel(
            name="PurgeRun",
            fields=[("day", models.DateField(primary_key=True, serialize=False))],
            options={"managed": False, "default_permissions": ()},
        ),
    ]
