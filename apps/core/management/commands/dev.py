"""Run the whole platform on one machine, in the foreground.

The web server, two Celery workers, beat and the agent are children of this command and end with
it. What is run here is what runs elsewhere: the same commands, only side by side.
"""

import contextlib
import errno
import fcntl
import http.client
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from http import HTTPStatus
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from apps.core.management.changes import Changes
from apps.core.management.supervisor import Part, Supervisor

PYTHON = sys.executable
ASK_SECONDS = 1.0
WATCHED = ("apps", "mlplatform", "templates")
CELERY = (PYTHON, "-m", "celery", "-q", "-A", "mlplatform.celery")
# The filesystem broker is no place for chatter between workers; their truth is a table anyway.
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the web server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise CommandError(
                f"MLP_BIND={text!r} is no address. Write host:port, as 127.0.0.1:8000."
            )
        return cls(host.strip("[]"), int(port))

    @property
    def reached_at(self) -> str:
        """The host under which this machine reaches it."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  # nosec B104

    @property
    def url(self) -> str:
        host = f"[{self.reached_at}]" if ":" in self.reached_at else self.reached_at
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """The answer of ``manage.py bootstrap --json``; a password only for somebody just made."""

    admin: str
    password: str
    token: str


class Command(BaseCommand):
    help = "Run everything on this machine: web server, workers, beat and agent. Ctrl-C ends it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reload", action="store_true", help="start anew when code changes")

    def handle(self, *args: Any, reload: bool, **options: Any) -> None:
        address = Address.parse(settings.BIND)
        os.umask(0o077)  # password hashes, keys and recorded inputs are for this user only
        with only_one(settings.DATA_DIR):
            refuse_taken(address)
            # Its absence is a warning of every worker.
            settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
            migrate(self.say)
            known = bootstrap()
            if known.password:
                self.say(f"Admin {known.admin!r} was made. Password: {known.password}")
            Session(address, known, self.say, reload=reload).run()
        self.say("All parts have ended.")

    def say(self, line: str) -> None:
        """Write one line; a reader that has gone is no reason to leave the children alone."""
        with contextlib.suppress(BrokenPipeError):
            self.stdout.write(line)
            self.stdout.flush()


class Session:
    """One run: starts the parts, greets when they are ready, runs the demo, waits for the end."""

    def __init__(self, address: Address, known: Bootstrapped, say: Any, *, reload: bool) -> None:
        self._address = address
        self._known = known
        self._say = say
        folder = settings.BASE_DIR
        self._changes = Changes([folder / name for name in WATCHED]) if reload else None
        self._supervisor = Supervisor(folder=folder, say=say)
        self._greeted = False
        self._asked = 0.0

    def run(self) -> None:
        for part in parts():
            self._supervisor.keep(part)
        self._supervisor.run(self._look)

    def _look(self) -> None:
        if not self._greeted and self._is_ready():
            self._greeted = True
            self._greet()
        if self._changes is not None and self._changes.any():
            self._say("A source file changed; every part starts anew.")
            self._supervisor.renew()

    def _is_ready(self) -> bool:
        """Ask once a second: while nobody answers, every question waits in line for its answer."""
        if time.monotonic() - self._asked < ASK_SECONDS:
            return False
        self._asked = time.monotonic()
        return is_ready(self._address)

    def _greet(self) -> None:
        if settings.DEMO:
            self._supervisor.once(demo(self._address, self._known), self._demo_ended)
        else:
            self._tell_addresses()

    def _demo_ended(self, status: int) -> None:
        if status and not self._supervisor.stopping:
            self._say("The demo could not be set up; its own words are above. The rest goes on.")
        self._tell_addresses()

    def _tell_addresses(self) -> None:
        if self._supervisor.stopping:
            return
        login = f"name {self._known.admin}, the password you know"
        if self._known.password:
            login = f"name {self._known.admin}, password {self._known.password} (shown only now)"
        for line in (
            "",
            f"mlplatform is ready at {self._address.url}",
            f"  admin  {self._address.url}/admin/   {login}",
            f"  API    {self._address.url}/docs",
            f"  data   {settings.DATA_DIR}",
            "Ctrl-C ends it.",
        ):
            self._say(line)


# --- before the start ---------------------------------------------------------------------------


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the data folder for this process alone."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with (folder / "dev.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise CommandError(
                f"Another run (process {lock.read().strip() or 'unknown'}) already works in "
                f"{folder}. End it, or give this one a folder and an address of its own: "
                "MLP_DATA_DIR=/another/folder MLP_BIND=127.0.0.1:8001 make run"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def refuse_taken(address: Address) -> None:
    """Say now that somebody else listens, rather than by a child that fails for ever."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((address.host, address.port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            what = "is taken by another program" if taken else f"cannot be had ({error.strerror})"
            raise CommandError(
                f"{address.host}:{address.port} {what}. "
                "Choose another address: MLP_BIND=127.0.0.1:8001 make run"
            ) from error


def migrate(say: Any) -> None:
    """Bring the tables up to date; an SQLite file that has any is copied first."""
    executor = MigrationExecutor(connection)
    pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if pending:
        if executor.loader.applied_migrations and connection.vendor == "sqlite":
            copy = back_up(Path(connection.settings_dict["NAME"]), settings.DATA_DIR / "backup")
            say(f"The database was copied to {copy}")
        say(f"Applying {len(pending)} migrations")
        call_command("migrate", verbosity=0, interactive=False)
    connection.close()
    if connection.vendor == "postgresql":
        connection.close_pool()  # type: ignore[attr-defined]  # its threads must not see a fork


def back_up(database: Path, folder: Path) -> Path:
    """Copy an SQLite file, with whatever its write-ahead log holds, into a folder."""
    folder.mkdir(exist_ok=True, mode=0o700)
    copy = folder / f"db-{timezone.now().astimezone(UTC):%Y%m%dT%H%M%S%fZ}.sqlite3"
    copy.touch(mode=0o600)
    with (
        contextlib.closing(sqlite3.connect(database)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    return copy


def bootstrap() -> Bootstrapped:
    """Make the admin and the demo team when they are not there; learn a fresh token."""
    done = subprocess.run(  # noqa: S603 - our own command
        [PYTHON, "manage.py", "bootstrap", "--json"],
        cwd=settings.BASE_DIR,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise CommandError("The first people and teams could not be made; see the words above.")
    answer = json.loads(done.stdout)
    return Bootstrapped(answer["admin"], answer.get("password") or "", answer["token"])


# --- the parts ----------------------------------------------------------------------------------


def parts() -> list[Part]:
    """Return everything that runs for the whole session."""
    gunicorn = (PYTHON, "-m", "gunicorn", "-c", "mlplatform/gunicorn.py")
    return [
        Part("web", (*gunicorn, "mlplatform.asgi:application"), {"MLP_BIND": settings.BIND}),
        Part("ticks", (*CELERY, "worker", "-Q", "ticks", "-n", "ticks@%h", "-P", "solo", *QUIET)),
        Part("work", (*CELERY, "worker", "-Q", "work", "-n", "work@%h", "-c", "1", *QUIET)),
        Part("beat", (*CELERY, "beat", "--pidfile=", "-l", "WARNING")),
        # Last, so that what the web server recorded while it drained is still shipped.
        Part("agent", (PYTHON, "manage.py", "agent"), last=True),
    ]


def demo(address: Address, known: Bootstrapped) -> Part:
    """Return the demo, which knows the platform only by its address."""
    facts = {
        "MLP_DEMO_URL": address.url,
        "MLP_DEMO_TOKEN": known.token,
        "MLP_DEMO_KEY_FILE": str(settings.DATA_DIR / "demo.key"),
    }
    return Part("demo", (PYTHON, "-m", "demo"), facts, bare=True)


def is_ready(address: Address) -> bool:
    """Return whether the web server says it can answer predictions."""
    link = http.client.HTTPConnection(address.reached_at, address.port, timeout=1)
    try:
        link.request("GET", "/health/ready")
        return link.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()
