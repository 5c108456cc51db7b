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
    """Tell serving processes what an endpoint now is."""
    body = selectors.endpoint_body(endpoint)
    key = endpoint_key(endpoint.environment, endpoint.model.name)
    snapshot.put(ENDPOINT, key, endpoint_to_json(body))


def put_endpoints(model: RegisteredModel) -> None:
    """Tell serving processes what all endpoints of a model now are."""
    for endpoint in Endpoint.objects.filter(model=model).select_related("model").order_by("id"):
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
