"""The command palette's answers, in unfold's own list.

It stands over unfold's view: that one keeps answers for five minutes, so that a model made a minute
ago would not be found, and asks every table that has a search.
"""

import time

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET
from unfold.dataclasses import SearchResult

from apps.accounts.admin.door import caller_of_request
from apps.monitoring.palette import find

MOST = 60


@never_cache
@require_GET
def search(request: HttpRequest) -> HttpResponse:
    """Draw what fits the typed words."""
    begun = time.monotonic()
    typed = request.GET.get("s", "")
    if not typed.strip():
        return HttpResponse()
    found = [
        SearchResult(one.title, one.kind, one.place, one.icon)
        for one in find(caller_of_request(request), typed)[:MOST]
    ]
    pages = Paginator(found, MOST)
    context = {
        "page_obj": pages,
        "results": pages.page(1),
        "page_counter": 0,
        "execution_time": time.monotonic() - begun,
        "command_show_history": False,
    }
    return TemplateResponse(
        request,
        "unfold/helpers/command_results.html",
        context,
        headers={"HX-Trigger": "search"},
    )
