"""The headers that tell a browser what it may do with a reply; plain rules by address.

One place for every way a reply may take: Django's middleware, the lean upload door, the refusals in
front of Django. Three policies: answers of the API are data and may load nothing; pages may use
files of this machine; the admin's theme also evaluates expressions (docs/decisions/0008).
"""

from collections.abc import Mapping
from types import MappingProxyType

ANSWERS = ("/api/", "/v2", "/health", "/metrics", "/ping", "/version", "/invocations", "/endpoints")
# The schema lies below /api/ and is an answer, too; its pages are below /docs and /redoc.
ADMIN = ("/admin/",)
DOCS = ("/docs", "/redoc")
STATIC = ("/static/",)

_NOTHING: Mapping[str, str] = {
    "default-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
# Swagger draws its marks as data: pictures.
_PAGES = {
    **_NOTHING,
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
}
# Swagger and Redoc write styles into the page.
_DOCS = {**_PAGES, "style-src": "'self' 'unsafe-inline'"}
_ADMIN = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-eval'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data:",
    "frame-ancestors": "'none'",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}


def _policy(directives: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {sources}" for name, sources in directives.items())


_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def _set(directives: Mapping[str, str], **more: str) -> Mapping[str, str]:
    lines = {**_ALWAYS, "Content-Security-Policy": _policy(directives)}
    return MappingProxyType(lines | {name.replace("_", "-"): one for name, one in more.items()})


_OF_ANSWERS = _set(_NOTHING, Cache_Control="no-store")
_OF_PAGES = _set(_PAGES, Cache_Control="no-store")
_OF_DOCS = _set(_DOCS, Cache_Control="no-store")
_OF_ADMIN = _set(_ADMIN, Cache_Control="no-store")
_OF_FILES = _set(_NOTHING)  # a file opened by itself is no page; caching is its server's to say


def headers_for(path: str) -> Mapping[str, str]:
    """Return what a reply from an address says unless its door says otherwise."""
    if path.startswith(ANSWERS):
        return _OF_ANSWERS
    if path.startswith(ADMIN):
        return _OF_ADMIN
    if path.startswith(STATIC):
        return _OF_FILES
    return _OF_DOCS if path.startswith(DOCS) else _OF_PAGES
