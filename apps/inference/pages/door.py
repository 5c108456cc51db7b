"""What all pages and fragments of predictions share: who looks, what for, and how refusals look."""

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, Concatenate, ParamSpec

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.cache import never_cache

from apps.accounts.admin.door import caller_of_request
from apps.accounts.callers import Caller
from apps.accounts.policies import Action, Thing, require
from apps.core.errors import PlatformError
from apps.registry import selectors as registry
from apps.registry.models import ModelVersion, RegisteredModel

P = ParamSpec("P")


def page(
    view: Callable[Concatenate[HttpRequest, P], HttpResponseBase],
) -> Callable[..., HttpResponseBase]:
    """Make a view a page for signed-in people; another team's thing is not there."""

    @wraps(view)
    def answered(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except PlatformError as error:
            if error.status is HTTPStatus.NOT_FOUND:
                raise Http404(error.message) from error
            if error.status is HTTPStatus.FORBIDDEN:
                raise PermissionDenied(error.message) from error
            raise

    guarded: Callable[..., HttpResponseBase] = admin.site.admin_view(never_cache(answered))
    return guarded


def model_for(request: HttpRequest, name: str, action: Action) -> tuple[Caller, RegisteredModel]:
    """Find a model on which the one who looks may do something.

    Raises:
        NotFound: It is not there, or another team's.
        NotAllowed: The role does not suffice.
    """
    caller = caller_of_request(request)
    model = registry.find_model(name)
    require(caller, action, Thing(model.team_id, model.name))
    return caller, model


def version_for(
    request: HttpRequest, name: str, number: int, action: Action
) -> tuple[Caller, ModelVersion]:
    """Find a version of a model on which the one who looks may do something."""
    caller, model = model_for(request, name, action)
    return caller, registry.find_version(model, number)


def page_context(request: HttpRequest, title: str, **more: Any) -> dict[str, Any]:
    """Return what every whole page needs beside its own."""
    return {**admin.site.each_context(request), "title": title, **more}
