"""The registry's tables."""

from apps.registry.models.endpoint import Endpoint, Release
from apps.registry.models.version import Alias, Artifact, ModelVersion, RegisteredModel

__all__ = ["Alias", "Artifact", "Endpoint", "ModelVersion", "RegisteredModel", "Release"]
