"""The roof: puts the apps together."""

from mlplatform.celery import app as celery_app

__all__ = ["celery_app"]
