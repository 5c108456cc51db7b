"""Prediction role: no admin, no sessions, short middleware; answers from the local snapshot."""

from mlplatform.settings.base import *

SERVES = True
ROOT_URLCONF = "mlplatform.urls_serving"
MIDDLEWARE = [
    "apps.core.middleware.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
]
SECURE_REDIRECT_EXEMPT = [r"^health"]
