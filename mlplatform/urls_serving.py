"""The doors of the role ``serving``: predictions and health, nothing else."""

from django.urls import include, path

from apps.core.api.urls import both
from apps.inference.urls import HEALTH, SERVING
from mlplatform.metrics import MetricsView

handler404 = "apps.core.api.exceptions.page_not_found"
handler500 = "apps.core.api.exceptions.server_error"

urlpatterns = [
    path("api/v1/", include((SERVING, "inference"))),
    path("api/", include((SERVING, "inference"), namespace="short-inference")),
    *HEALTH,
    *both("metrics", MetricsView.as_view(has_database=False), "metrics"),
]
