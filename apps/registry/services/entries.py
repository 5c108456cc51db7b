"""Snapshot entries of the registry; each call belongs at the end of its change's transaction."""

from apps.core import snapshot
from apps.registry import selectors
from apps.registry.models import Endpoint, ModelVersion, RegisteredModel
from apps.registry.snapshot import (
    ENDPOINT,
    VERSION,
    endpoint_key,
    endpoint_to_json,
    version_key,
    version_to_json,
)
from apps.registry.states import RELEASABLE


def put_endpoint(endpoint: Endpoint) -> None:
    """Tell serving processes what an endpoint now is; nothing when its model was deleted.

    A body holds the release, the aliases and the model's settings, which are changed under locks
    of their own. So it is read in turn, and afresh: else one change would write back the state
    before another.
    """
    snapshot.take_turn()
    fresh = Endpoint.objects.select_related("model").get(pk=endpoint.pk)
    if fresh.model.deleted_at is None:
        key = endpoint_key(fresh.environment, fresh.model.name)
        snapshot.put(ENDPOINT, key, endpoint_to_json(selectors.endpoint_body(fresh)))


def put_endpoints(model: RegisteredModel) -> None:
    """Tell serving processes what all endpoints of a model now are."""
    for endpoint in Endpoint.objects.filter(model=model).order_by("id"):
        put_endpoint(endpoint)


def put_version(version: ModelVersion) -> None:
    """Tell serving processes of a version that may be loaded."""
    body = selectors.version_body(version)
    snapshot.put(VERSION, version_key(version.model.name, version.number), version_to_json(body))


def drop_version(version: ModelVersion) -> None:
    """Tell serving processes that a version may no longer be loaded."""
    snapshot.drop(VERSION, version_key(version.model.name, version.number))


def drop_model(model: RegisteredModel) -> None:
    """Tell serving processes that a model is gone, with all its versions."""
    for endpoint in Endpoint.objects.filter(model=model).order_by("id"):
        snapshot.drop(ENDPOINT, endpoint_key(endpoint.environment, model.name))
    loadable = ModelVersion.objects.filter(model=model, state__in=RELEASABLE).order_by("id")
    for version in loadable.select_related("model"):
        drop_version(version)
