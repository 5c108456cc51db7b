"""Prediction role: no admin, no sessions, short middleware; answers from the local snapshot."""

from mlplatform.settings.production import *

SERVES = True
ROOT_URLCONF = "mlplatform.urls_serving"
MIDDLEWARE = [
    "apps.core.middleware.RequestIdMiddleware",
    "apps.core.middleware.HeadersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "allauth.account.middleware.AccountMiddleware",  # allauth does not start without it
]
# The web role asks here from inside, without TLS, and a redirected POST would lose its body. The
# edge in front redirects browsers.
SECURE_SSL_REDIRECT = False
SILENCED_SYSTEM_CHECKS = [
    "admin.E408",  # the admin's tables are known here, its pages are not
    "admin.E409",
    "admin.E410",
    "security.W002",  # X-Frame-Options comes with HeadersMiddleware
    "security.W003",  # no cookie is read here, so there is nothing to forge
    "security.W008",  # no redirect, see above
]
