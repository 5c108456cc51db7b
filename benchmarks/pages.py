"""Server time and queries of every page of the admin, with the estate of a large company.

Run as ``python -m benchmarks.pages`` (PostgreSQL, started for it) or with ``--sqlite``. Time is
that of the request inside Django, template included, without a network; the bar is 300 ms. The
figures are shown as a part of that bar, beside the time of a bare query, because machines differ.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.test import Client

BAR_MS = 300.0
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Visit:
    """One page, and what it cost."""

    name: str
    path: str
    status: int
    milliseconds: float
    queries: int
    size: int


@contextlib.contextmanager
def _database(*, sqlite: bool, folder: Path) -> Iterator[None]:
    from scripts import services

    if sqlite:
        yield
        return
    (folder / "postgres").mkdir()
    running = services.start_postgres(folder / "postgres")
    os.environ["DATABASE_URL"] = running.url
    try:
        yield
    finally:
        services.stop(running)


def _visit(name: str, path: str, client: "Client") -> Visit:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    spent, queries, reply = [], 0, None
    for _ in range(ROUNDS):
        with CaptureQueriesContext(connection) as captured:
            started = time.perf_counter()
            reply = client.get(path)
            spent.append((time.perf_counter() - started) * 1000)
        queries = len(captured)
    assert reply is not None
    return Visit(
        name, path, reply.status_code, statistics.median(spent), queries, len(reply.content)
    )


def _show(visits: list[Visit], query_ms: float) -> int:
    print(f"a bare query takes {query_ms:.2f} ms; the bar of a page is {BAR_MS:.0f} ms")
    for one in sorted(visits, key=lambda one: -one.milliseconds):
        over = "OVER" if one.milliseconds > BAR_MS else ""
        bad = "" if one.status == 200 else f"status {one.status}"
        print(
            f"{one.milliseconds / BAR_MS:6.2f} of the bar {one.milliseconds:7.1f} ms "
            f"{one.queries:3} queries {one.size / 1000:6.0f} kB  {one.name} {over}{bad}"
        )
    return sum(one.milliseconds > BAR_MS or one.status != 200 for one in visits)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--sqlite", action="store_true")
    words.add_argument("--models", type=int, default=1_000)
    words.add_argument("--predictions", type=int, default=1_000_000)
    chosen = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlplatform-pages-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.environ |= {
            "MLP_ENV_FILE": "0",
            "MLP_DATA_DIR": str(folder / "var"),
            "DJANGO_SETTINGS_MODULE": "mlplatform.settings.dev",
            "MLP_ALLOWED_HOSTS": "testserver,localhost",
            "MLP_LOG_LEVEL": "ERROR",
        }
        with _database(sqlite=chosen.sqlite, folder=folder):
            return _measure(chosen.models, chosen.predictions)


def _measure(models: int, predictions: int) -> int:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client

    from benchmarks.admin_pages import pages_of
    from benchmarks.estate import Size, fill

    call_command("migrate", verbosity=0)
    started = time.perf_counter()
    estate = fill(Size(models=models, predictions=predictions))
    print(
        f"{models} models, {predictions} predictions made in {time.perf_counter() - started:.0f} s"
    )
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    failed = 0
    for person in (estate.admin, estate.member):
        client = Client()
        client.force_login(person)
        print(f"\nas {person.username}")
        visits = [_visit(name, path, client) for name, path in pages_of(estate)]
        failed += _show(visits, _bare_query_ms())
    return 1 if failed else 0


def _bare_query_ms() -> float:
    from django.db import connection

    spent = []
    for _ in range(50):
        started = time.perf_counter()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        spent.append((time.perf_counter() - started) * 1000)
    return statistics.median(spent)


if __name__ == "__main__":
    sys.exit(main())
