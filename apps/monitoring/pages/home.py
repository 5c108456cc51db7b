"""Home: unfold's dashboard, filled."""

from typing import Any

from django.http import HttpRequest

from apps.accounts.admin.door import caller_of_request
from apps.monitoring.home import home_of


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add what Home shows; ``UNFOLD["DASHBOARD_CALLBACK"]`` names this."""
    caller = caller_of_request(request)
    host = f"{request.scheme}://{request.get_host()}"
    return {**context, "title": "Home", "home": home_of(caller), "host": host}
