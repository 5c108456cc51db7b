"""Settings of the test suite: fast hashes, a private data folder, no environment file."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("MLP_ENV_FILE", "0")
os.environ.setdefault("MLP_DATA_DIR", tempfile.mkdtemp(prefix="mlplatform-test-"))

from mlplatform.settings.base import *

SECRET_KEY = "only-for-tests"  # noqa: S105 - signs nothing that outlives a test
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
REQUIRE_APPROVAL = False
NATIVE_FORMATS = frozenset({"sklearn"})
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
WHITENOISE_AUTOREFRESH = True
Path(STATIC_ROOT).mkdir(parents=True, exist_ok=True)
if "pool" in DATABASES["default"].get("OPTIONS", {}):
    DATABASES["default"]["OPTIONS"].pop("pool")  # a pool's threads outlive the test database
