"""Admin and API role in production: behind TLS, all middleware."""

from mlplatform.settings.production import *
