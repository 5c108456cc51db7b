"""Addresses without a trailing slash that are also answered with one, never by a redirect."""

from collections.abc import Callable
from typing import Any

from django.urls import URLPattern, path


def both(route: str, view: Callable[..., Any], name: str) -> list[URLPattern]:
    """Return the patterns of one address; ``reverse`` gives the one without the slash."""
    return [path(f"{route}/", view), path(route, view, name=name)]
