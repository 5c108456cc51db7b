"""The models of a team, for the team's page."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from apps.accounts.admin.door import caller_of_request
from apps.accounts.policies import Action, Thing, may
from apps.registry import selectors

SHOWN = 20


@require_GET
def team_models(request: HttpRequest, team: int) -> HttpResponse:
    """Draw the first models of a team, with what each serves."""
    if not may(caller_of_request(request), Action.MODEL_READ, Thing(team)):
        raise Http404
    models = selectors.models_for_list(selectors.living_models().filter(team_id=team))
    shown = list(models.order_by("name")[: SHOWN + 1])
    words = {"models": shown[:SHOWN], "has_more": len(shown) > SHOWN, "team": team}
    return render(request, "registry/team_models.html", words)
