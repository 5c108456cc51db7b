"""What every floor stands on."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate

from apps.core import write_once


class CoreConfig(AppConfig):
    name = "apps.core"
    label = "core"
    verbose_name = "Evidence"

    def ready(self) -> None:
        from apps.core import (  # noqa: PLC0415 - they register themselves
            audit_checks,  # noqa: F401 - as above
            deploy_checks,  # noqa: F401 - as above
        )

        post_migrate.connect(write_once.ensure, sender=self)
