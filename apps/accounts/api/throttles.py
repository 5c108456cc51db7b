"""DRF's skin over ``limits``: requests of callers with a plan, told in the reply's headers."""

from typing import TYPE_CHECKING

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from apps.accounts import wiring
from apps.accounts.callers import Caller
from apps.core import context

if TYPE_CHECKING:
    from rest_framework.views import APIView


class CallerThrottle(BaseThrottle):
    """Counts each call as one request; how many rows it has is the prediction door's business."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        """Count it; a refusal is raised, so that it reads like every other one."""
        if isinstance(request.auth, Caller):
            visit = wiring.limiter().enter(request.auth, context.current().address, rows=False)
            visit.spend(0)
            view.headers.update(visit.headers())
        return True
