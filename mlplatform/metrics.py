"""GET /metrics: this process' numbers in Prometheus' text format, for who has `metrics:read`.

Roles differ by what they can ask: a process that serves knows callers from memory and has no
database, all others ask the database.
"""

from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.accounts import policies
from apps.accounts.api.authentication import CallerAuthentication, caller
from apps.accounts.callers import Caller
from apps.accounts.policies import Action, Thing
from apps.core import metrics
from apps.core.api.schema import problems
from apps.core.models import Event, EventSeal
from apps.inference.api import door


class MetricsView(APIView):
    """GET /metrics."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()
    has_database = True

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Negotiate nothing: scrapers accept many kinds, and there is one."""

    @extend_schema(
        operation_id="metrics",
        tags=["health"],
        summary="The numbers of one process",
        description="In Prometheus' text format. Each process has its own; a scrape meets one.",
        responses={(200, "text/plain"): OpenApiTypes.STR, **problems(401, 403, 503)},
    )
    def get(self, request: Request) -> HttpResponse:
        """Show the numbers."""
        policies.require(self._caller(request), Action.METRICS_READ, Thing())
        if self.has_database:
            metrics.EVENTS_UNSEALED.set(_unsealed_seconds())
        return HttpResponse(metrics.page(), content_type=metrics.MEDIA_TYPE)

    def _caller(self, request: Request) -> Caller:
        if settings.SERVES:
            headers = {name.lower(): value for name, value in request.headers.items()}
            return door.authenticate(headers)
        plain: HttpRequest = request._request  # noqa: SLF001 - DRF's name for Django's
        found = CallerAuthentication().authenticate(Request(plain))
        request.auth = found[1] if found else None
        return caller(request)


def _unsealed_seconds() -> float:
    """Return the age of the oldest event outside the chain; a scrape outlives the database."""
    try:
        sealed = EventSeal.objects.order_by("-seq").values_list("event_id", flat=True).first()
        waiting = Event.objects.filter(pk__gt=sealed or 0).order_by("pk")
        oldest = waiting.values_list("at", flat=True).first()
    except (OperationalError, InterfaceError):
        return float("nan")
    return 0.0 if oldest is None else max(0.0, (timezone.now() - oldest).total_seconds())
