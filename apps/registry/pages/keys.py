"""What the pages of keys and teams show of models: names to choose, a curl that works, counts."""

from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from apps.accounts.admin.door import caller_of_request, teams_where
from apps.accounts.models import ApiKey, Team
from apps.accounts.policies import PRODUCTION, Action, Thing, may
from apps.accounts.selectors import keys_of, teams_of
from apps.registry import selectors
from apps.registry.models import ModelVersion, Release
from apps.registry.snippets import Snippet, snippets_for
from apps.registry.states import ReleaseState

# Names offered for choosing; the rest are typed.
MOST_NAMES = 200
MOST_TEAMS = 200


@require_GET
def model_names(request: HttpRequest, team: int) -> HttpResponse:
    """Draw the names of a team's models, to choose from."""
    if not may(caller_of_request(request), Action.MODEL_READ, Thing(team)):
        raise Http404
    models = selectors.living_models().filter(team_id=team).order_by("name")
    names = list(models.values_list("name", flat=True)[: MOST_NAMES + 1])
    words = {"names": names[:MOST_NAMES], "has_more": len(names) > MOST_NAMES}
    return render(request, "registry/model_names.html", words)


@never_cache
@require_GET
def key_curl(request: HttpRequest, key: str) -> HttpResponse:
    """Draw a request that works with this key: a model that serves where the key reaches."""
    caller = caller_of_request(request)
    managed = teams_where(caller, Action.KEY_MANAGE)
    found = keys_of(caller, managed=managed).filter(pk=key).first()
    if found is None:
        raise Http404
    return render(request, "registry/key_curl.html", {"key": found, "curl": _curl(request, found)})


@require_GET
def team_counts(request: HttpRequest) -> HttpResponse:
    """Fill the cells of a list of teams: how many models each has."""
    ids = [
        int(one)
        for one in request.GET.get("ids", "").split(",")
        if one.isdecimal() and len(one) < 10
    ]
    living = Count("models", filter=Q(models__deleted_at__isnull=True))
    seen = teams_of(caller_of_request(request)).filter(pk__in=ids[:MOST_TEAMS])
    teams = Team.objects.filter(pk__in=seen).annotate(model_count=living)
    return render(request, "registry/team_counts.html", {"teams": teams})


def _curl(request: HttpRequest, key: ApiKey) -> Snippet | None:
    release = _served_for(key)
    if release is None:
        return None
    model, environment = release.endpoint.model, release.endpoint.environment
    version = ModelVersion.objects.filter(model=model, number__in=release.version_numbers).first()
    if version is None or version.example is None:
        return None
    host = f"{request.scheme}://{request.get_host()}"
    made = snippets_for(host=host, model=model.name, environment=environment, body=version.example)
    return made[0]


def _served_for(key: ApiKey) -> Release | None:
    """Find what a key may call now; production before the others."""
    live = Release.objects.filter(
        state=ReleaseState.LIVE,
        endpoint__model__team=key.team_id,
        endpoint__model__deleted_at__isnull=True,
        endpoint__environment__in=key.environments,
    ).select_related("endpoint__model")
    if key.model_names:
        live = live.filter(endpoint__model__name__in=key.model_names)
    in_production = live.filter(endpoint__environment=PRODUCTION)
    return in_production.order_by("-id").first() or live.order_by("-id").first()
