"""Celery role: background work, no web."""

from mlplatform.settings.production import *
