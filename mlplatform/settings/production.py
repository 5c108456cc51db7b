"""What the roles of an installation share that others reach: TLS in front, cookies for it alone."""

from mlplatform.settings import env
from mlplatform.settings.base import *

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Probes come without TLS from inside.
SECURE_REDIRECT_EXEMPT = [r"^health"]
SECURE_SSL_REDIRECT = env.switch("MLP_SSL_REDIRECT", default=True)
SECURE_HSTS_SECONDS = env.integer("MLP_HSTS_SECONDS", 31_536_000)
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
# A browser takes these names only over TLS, from this host, and for the whole of it.
SESSION_COOKIE_NAME = "__Host-session"
CSRF_COOKIE_NAME = "__Host-csrf"
