"""What a caller reaches: things of the caller's teams; everything else looks as if it were not."""

from django.db.models import QuerySet
from django.http import HttpRequest

from apps.accounts.callers import Caller
from apps.accounts.models import Team
from apps.accounts.policies import Action, Thing, require, unseen
from apps.accounts.selectors import teams_of
from apps.core.errors import FieldProblem, Invalid
from apps.registry import selectors
from apps.registry.models import RegisteredModel
from apps.registry.models.version import NAME


def models_seen_by(who: Caller) -> QuerySet[RegisteredModel]:
    """The models that exist for a caller; a key bound to some models sees only those."""
    seen = selectors.living_models()
    if who.key is not None and who.key.models:
        seen = seen.filter(name__in=who.key.models)
    return seen if who.sees_all else seen.filter(team__in=teams_of(who))


def model_for(
    who: Caller, name: str, action: Action, environment: str | None = None
) -> RegisteredModel:
    """Find a model for what the caller wants to do with it.

    Raises:
        NotFound: There is none, or it is another team's.
        NotAllowed: The caller sees it but may not do this.
    """
    model = selectors.living_models().filter(name=name).first() if NAME.fullmatch(name) else None
    if model is None:
        raise unseen(name if NAME.fullmatch(name) else None)
    require(who, action, Thing(model.team_id, model.name, environment))
    return model


def team_for(who: Caller, slug: str) -> Team:
    """Find the team for something new: the one named, else the only one there can be."""
    teams = teams_of(who)
    if slug:
        team = teams.filter(slug=slug).first() if "\x00" not in slug else None
        if team is None:
            raise unseen()
        return team
    if who.key is None and not who.sees_all and len(who.roles) != 1:
        raise _name_the_team()
    mine = list(teams[:2])
    if len(mine) != 1:
        raise _name_the_team()
    return mine[0]


def _name_the_team() -> Invalid:
    error = Invalid("Name the team: you have not exactly one.")
    error.at([FieldProblem("/team", "Give the slug of the team.")])
    return error


def absolute(request: HttpRequest | None, path: str) -> str:
    """The whole address of a path, as this client reaches us."""
    return path if request is None else request.build_absolute_uri(path)
