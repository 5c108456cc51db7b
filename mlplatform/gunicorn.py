"""How gunicorn runs this project: its own ASGI worker, and a graceful end.

Each worker builds its engine after the fork and before it takes connections, so a worker that
replaces a dead one answers its first request from a warm model. Values are read from the
environment here because gunicorn reads this file before Django is set up.
"""

import os
import signal
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mlplatform.settings.dev")

bind = os.environ.get("MLP_BIND") or "127.0.0.1:8000"
workers = int(os.environ.get("WEB_CONCURRENCY") or "2")
worker_class = "asgi"
wsgi_app = "mlplatform.asgi:application"
# Imported once, before the fork: a worker that replaces a dead one starts in a fraction of a second
# instead of seconds. Nothing that has threads or connections is built by an import.
preload_app = True
# Connections from one proxy stay open between requests, but never longer than a drain lasts.
keepalive = 5
# A worker whose event loop says nothing for so long is ended and replaced.
timeout = 60
# What requests in flight get after SIGTERM; the supervisor above waits a little longer.
graceful_timeout = 25
# Warm models before the first connection, but rather late than never.
WARM_SECONDS = 20.0
# The body's own limits stand in the doors; these bound what comes before it.
limit_request_line = 8190
limit_request_fields = 100
# No socket through which the server could be steered.
control_socket_disable = True
accesslog = None
errorlog = "-"
loglevel = "warning"
proc_name = "mlplatform"


def post_worker_init(worker: Any) -> None:
    """Build this worker's engine, wait for its models, and hear of the end in time."""
    from django.conf import settings  # noqa: PLC0415 - the worker has set Django up by now

    from apps.inference import wiring  # noqa: PLC0415 - as above

    if settings.SERVES:
        wiring.start(WARM_SECONDS)

    def drain() -> None:
        # Not ready from now on; the server itself finishes what is in flight.
        wiring.drain()
        worker.handle_exit_signal()

    worker.loop.add_signal_handler(signal.SIGTERM, drain)


def worker_exit(_server: Any, _worker: Any) -> None:
    """Seal what this worker recorded, so that it is shipped at once."""
    from apps.inference import wiring  # noqa: PLC0415 - as above

    wiring.reset()


def child_exit(_server: Any, worker: Any) -> None:
    """Take away the report of a dead worker, so that a roll-out does not wait for it."""
    from pathlib import Path  # noqa: PLC0415 - as above

    from django.conf import settings  # noqa: PLC0415 - as above

    from apps.inference.node import Node  # noqa: PLC0415 - as above

    Node(Path(settings.SERVING_DIR)).leave(worker.pid)
