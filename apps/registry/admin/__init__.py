"""Screens of models, versions, endpoints and releases."""

from apps.registry.admin import endpoint, model, version

__all__ = ["endpoint", "model", "version"]
