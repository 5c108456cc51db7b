"""Addresses of predictions below /api/v1/, and of health below the root."""

from django.urls import URLPattern

from apps.core.api.urls import both
from apps.inference.api import health
from apps.inference.api.analytics import ANALYTICS_PATHS
from apps.inference.api.predict import PredictView
from apps.inference.api.predictions import PREDICTION_PATHS
from apps.inference.api.privacy import PRIVACY_PATHS

app_name = "inference"

# What a serving process answers; relative to /api/v1/ and to /api/.
SERVING: list[URLPattern] = both("predict/<str:model>", PredictView.as_view(), "predict")

# What every role answers; relative to the root.
HEALTH: list[URLPattern] = [
    *both("health", health.ready, "health"),
    *both("health/ready", health.ready, "health-ready"),
    *both("health/live", health.live, "health-live"),
    *both("health/deps", health.DepsView.as_view(), "health-deps"),
]

urlpatterns: list[URLPattern] = [*SERVING, *PREDICTION_PATHS, *ANALYTICS_PATHS, *PRIVACY_PATHS]
