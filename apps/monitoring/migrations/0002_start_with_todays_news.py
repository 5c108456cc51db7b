"""An installation that is upgraded has a past; its people are told what comes, not what was.

Going back removes the row; the next start would then tell everything that is still sealed.
"""

from django.db import migrations
from django.db.models import Max


def start_here(apps, schema_editor):
    """Put the cursor behind the newest seal."""
    newest = apps.get_model("core", "EventSeal").objects.aggregate(seq=Max("seq"))["seq"]
    apps.get_model("monitoring", "NewsCursor").objects.get_or_create(
        id=1, defaults={"seq": newest or 0}
    )


class Migration(migrations.Migration):
    dependencies = [
        ("monitoring", "0001_monitoring_tables"),
        ("core", "0001_core_tables"),
    ]

    operations = [migrations.RunPython(start_here, migrations.RunPython.noop)]
