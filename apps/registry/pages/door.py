"""What the registry's own pages share: a thing of the caller's teams, or it is not there."""

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest

from apps.accounts.admin.door import caller_of_request
from apps.accounts.policies import Action, Thing, may
from apps.registry import selectors
from apps.registry.models import ModelVersion, RegisteredModel


def check(request: HttpRequest, action: Action, model: RegisteredModel) -> None:
    """Let through who may do this to a model; to a stranger it does not exist."""
    caller, thing = caller_of_request(request), Thing(model.team_id, model.name)
    if not may(caller, Action.MODEL_READ, thing):
        raise Http404
    if not may(caller, action, thing):
        raise PermissionDenied


def model_of(request: HttpRequest, pk: int, action: Action = Action.MODEL_READ) -> RegisteredModel:
    """Find a model for what the caller wants to do with it."""
    model = selectors.living_models().filter(pk=pk).first()
    if model is None:
        raise Http404
    check(request, action, model)
    return model


def version_of(request: HttpRequest, **known: object) -> ModelVersion:
    """Find a version that the caller may see."""
    rows = ModelVersion.objects.filter(model__deleted_at__isnull=True, **known)
    version = rows.select_related("model__team").only("number", "state", "model__team").first()
    if version is None:
        raise Http404
    check(request, Action.MODEL_READ, version.model)
    return version
