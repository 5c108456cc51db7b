"""What holds for all tests: plain rules have no database, services are named by the environment."""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db.backends.base.operations import BaseDatabaseOperations

from apps.accounts import wiring as limits_wiring

HERE = Path(__file__).parent
UNIT = HERE / "unit"
# Files whose tests share a platform that takes long to start: each stays on one process.
WHOLE_FILES = (HERE / "browser", HERE / "flows")
DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup", "admin_user", "admin_client"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a unit test that asks for a database; keep files with a platform in one place."""
    wrong = [item.nodeid for item in items if item.path.is_relative_to(UNIT) and _has_db(item)]
    if wrong:
        raise pytest.UsageError("tests/unit may touch no database: " + ", ".join(sorted(wrong)))
    for item in items:
        if item.path.parent in WHOLE_FILES:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _has_db(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    return item.get_closest_marker("django_db") is not None or bool(fixtures & DATABASE_FIXTURES)


def pytest_unconfigure() -> None:
    """Remove the data folder that the test settings made for this process."""
    folder = Path(settings.DATA_DIR)
    if folder.name.startswith("mlplatform-test-"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _tables_are_emptied_between_tests() -> Iterator[None]:
    """Let the flush after a test with real commits empty the audit record, which refuses it."""
    from apps.core import write_once

    emptied = BaseDatabaseOperations.execute_sql_flush

    def empty(self: BaseDatabaseOperations, sql_list: Iterable[str]) -> None:
        with write_once.suspended():
            emptied(self, sql_list)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseDatabaseOperations, "execute_sql_flush", empty)
        yield


@pytest.fixture(autouse=True)
def _limits_begin_anew() -> Iterator[None]:
    """Let no test be refused for what another one used up on this node."""
    yield
    path = limits_wiring.local_path()
    limits_wiring.reset()
    path.unlink(missing_ok=True)


@pytest.fixture
def postgres_url() -> str:
    """Address of a private PostgreSQL on which databases may be made."""
    return _service("MLP_TEST_POSTGRES_URL", "PostgreSQL")


@pytest.fixture
def redis_url() -> str:
    """Address of a private Redis that keeps nothing."""
    return _service("MLP_TEST_REDIS_URL", "Redis")


def _service(name: str, what: str) -> str:
    url = os.environ.get(name, "")
    if not url:
        pytest.skip(f"{what} was not started; `make test` starts it")
    return url


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name bytes and long texts by their argument: archives and keys differ in every process."""
    if isinstance(val, bytes) or (isinstance(val, str) and len(val) > 40):
        return argname
    return None
