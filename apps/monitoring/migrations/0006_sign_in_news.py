from django.db import migrations, models

KINDS = [
    ("approval_wanted", "Approval wanted"),
    ("version_ready", "Version ready"),
    ("version_rejected", "Version rejected"),
    ("release_live", "Release live"),
    ("release_rejected", "Release rejected"),
    ("rolled_back", "Rolled back"),
    ("team_joined", "Added to a team"),
    ("role_changed", "Role changed"),
    ("key_unused", "Key unused"),
    ("sign_in", "Sign-in"),
    ("audit", "Audit record"),
]


class Migration(migrations.Migration):
    """Names of kinds only; no statement runs on the table."""

    dependencies = [("monitoring", "0005_audit_news")]

    operations = [
        migrations.AlterField(
            model_name="notification",
            name="kind",
            field=models.CharField(choices=KINDS, max_length=20),
        ),
    ]
