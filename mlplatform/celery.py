"""The Celery application; the broker only hints, ``core.Work`` is the truth."""

import os
from pathlib import Path

from celery import Celery

from mlplatform import broker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mlplatform.settings.dev")

broker.register()
app = Celery("mlplatform")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@app.on_after_configure.connect
def make_broker_folders(sender: Celery, **_: object) -> None:
    """Make the folders of the filesystem transport, which does not make them itself."""
    options = sender.conf.broker_transport_options or {}
    for name in ("data_folder_in", "data_folder_out", "control_folder"):
        if name in options:
            Path(options[name]).mkdir(parents=True, exist_ok=True, mode=0o700)
