"""Tells each key the hour in which it was used last, so that none is taken for unused.

Until now only the hourly counts knew it. Going back leaves what was learnt.
"""

from django.db import migrations
from django.db.models import Max


def fill(apps, schema_editor):
    keys = apps.get_model("accounts", "ApiKey").objects
    hours = apps.get_model("inference", "KeyHour").objects.exclude(key_id="")
    last = hours.values_list("key_id").annotate(last=Max("hour")).order_by()
    for key_id, hour in last.iterator(chunk_size=2000):
        keys.filter(pk=key_id, last_used_at__isnull=True).update(last_used_at=hour)


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_plans_invitations_and_guards"),
        ("inference", "0005_erasures"),
    ]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
