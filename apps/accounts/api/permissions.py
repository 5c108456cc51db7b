"""DRF's skin over ``policies``: a view is closed unless it says otherwise."""

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from apps.accounts.api.authentication import caller
from apps.accounts.wiring import limiter
from apps.core import context
from apps.core.errors import NotAuthenticated

if TYPE_CHECKING:
    from rest_framework.views import APIView


class DenyByDefault(BasePermission):
    """A known caller is the least; each view asks ``policies.require`` for its own action."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        try:
            caller(request)
        except NotAuthenticated:
            address = context.current().address
            limiter().guard(address)
            limiter().note_refused(address)
            raise
        return True


class Open(BasePermission):
    """Anybody may come: sign-in and the like."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        return True
