"""The embedded default: everything on one machine, no server to install."""

from mlplatform.settings import env
from mlplatform.settings.base import *

REQUIRE_APPROVAL = env.switch("MLP_REQUIRE_APPROVAL", default=False)
NATIVE_FORMATS = frozenset(env.words("MLP_NATIVE_FORMATS", ("torch", "tensorflow", "sklearn")))
SERVES = True
REGISTRATION = env.choice("MLP_REGISTRATION", "invitation", REGISTRATION_MODES)
INSTALLATION = env.text("MLP_INSTALLATION", "development")
