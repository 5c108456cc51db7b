"""Settings of the test suite: fast hashes, a private data folder, no environment file."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("MLP_ENV_FILE", "0")
# One folder per test process: those of a parallel run inherit this environment from the first.
if "PYTEST_XDIST_WORKER" in os.environ or "MLP_DATA_DIR" not in os.environ:
    os.environ["MLP_DATA_DIR"] = tempfile.mkdtemp(prefix="mlplatform-test-")

from mlplatform.settings import base
from mlplatform.settings.base import *

# A database each for the processes of a parallel run: a test may empty the cache that it counts in.
_worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
REDIS_URL = base.REDIS_URL
if REDIS_URL and _worker:
    REDIS_URL = f"{REDIS_URL.rpartition('/')[0]}/{int(_worker) + 1}"
    CACHES["default"]["LOCATION"] = REDIS_URL

SECRET_KEY = "only-for-tests"  # noqa: S105 - signs nothing that outlives a test
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
REQUIRE_APPROVAL = False
REGISTRATION = "open"
THROTTLE_LOGIN = THROTTLE_REGISTER = THROTTLE_UPLOAD = ""  # tests of them say their own
LIMIT_REFUSED_PER_MINUTE = 0  # the tests have one address, and present many bad credentials
NATIVE_FORMATS = frozenset({"sklearn"})
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
WHITENOISE_AUTOREFRESH = True
Path(STATIC_ROOT).mkdir(parents=True, exist_ok=True)
if "pool" in DATABASES["default"].get("OPTIONS", {}):
    DATABASES["default"]["OPTIONS"].pop("pool")  # a pool's threads outlive the test database
