"""The registry: which models exist and which may serve."""

from django.apps import AppConfig


class RegistryConfig(AppConfig):
    name = "apps.registry"
    default_auto_field = "django.db.models.BigAutoField"
