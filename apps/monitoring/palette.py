"""What the command palette (Ctrl+K) finds: things of one's own teams by name, and pages.

A few bounded queries, none of them over a table of predictions except by an id.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from uuid import UUID

from django.db.models import Q
from django.urls import NoReverseMatch, reverse

from apps.accounts.callers import Caller
from apps.accounts.models import ApiKey, User
from apps.accounts.policies import Action, Thing, may
from apps.accounts.selectors import keys_of, teams_of
from apps.inference.selectors import by_id, readable_by
from apps.monitoring.home import seen_models
from apps.registry.models import Endpoint, ModelVersion
from apps.registry.states import Environment

MOST = 6
_VERSION = re.compile(r"(?P<model>\S+?)[\s/](?:v|version\s+)?(?P<number>[0-9]{1,9})\Z")
_KEY_ID = re.compile(r"(?:mlp_(?:live|test)_)?(?P<id>[0-9A-Za-z]{4,12})")
# Title, what it is for, icon, URL name; those without a rule are everybody's.
PAGES: tuple[tuple[str, str, str, str], ...] = (
    ("Home", "What needs you", "home", "admin:index"),
    ("Models", "Page", "deployed_code", "admin:registry_registeredmodel_changelist"),
    ("Versions", "Page", "layers", "admin:registry_modelversion_changelist"),
    ("Upload version", "Do", "upload", "admin:registry_modelversion_add"),
    ("Endpoints", "Page", "route", "admin:registry_endpoint_changelist"),
    ("Releases", "Page", "rocket_launch", "admin:registry_release_changelist"),
    ("Traffic", "Page", "monitoring", "inference-pages:traffic"),
    ("Predictions", "Page", "query_stats", "admin:inference_prediction_changelist"),
    ("API keys", "Page", "key", "admin:accounts_apikey_changelist"),
    ("Make key", "Do", "add", "admin:accounts_apikey_add"),
    ("Teams", "Page", "groups", "admin:accounts_team_changelist"),
    ("Notifications", "Page", "notifications", "monitoring:notifications"),
    ("Change password", "Do", "password", "admin:password_change"),
    ("API documentation", "Page", "description", "docs"),
)
ADMIN_PAGES: tuple[tuple[str, str, str, str], ...] = (
    ("People", "Page", "person", "admin:accounts_user_changelist"),
    ("Background work", "Page", "sync", "admin:core_work_changelist"),
    ("Rejected records", "Page", "report", "admin:inference_predictionrejected_changelist"),
)
AUDIT_PAGE = ("Audit", "Page", "history", "admin:core_event_changelist")


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that fits: its name, what it is, where it is, and the icon beside it."""

    title: str
    kind: str
    place: str
    icon: str


def find(caller: Caller, typed: str) -> list[Found]:
    """Return what fits the words that somebody typed, the likeliest kinds first."""
    term = typed.strip().replace("\x00", "")[:200]
    if len(term) < 2:
        return []
    finders: tuple[Callable[[Caller, str], Iterator[Found]], ...] = (
        _predictions,
        _versions,
        _models,
        _endpoints,
        _keys,
        _teams,
        _people,
        _pages,
    )
    return list(chain.from_iterable(finder(caller, term) for finder in finders))


def _predictions(caller: Caller, term: str) -> Iterator[Found]:
    try:
        UUID(term)
    except ValueError:
        return
    for one in by_id(readable_by(caller), term).only("id", "model", "version"):
        place = reverse("admin:inference_prediction_change", args=[one.pk])
        yield Found(str(one.pk), f"Prediction of {one.model} {one.version}", place, "query_stats")


def _versions(caller: Caller, term: str) -> Iterator[Found]:
    """Find *wine 4*, *wine/4* and *wine v4*."""
    asked = _VERSION.match(term)
    if asked is None:
        return
    rows = ModelVersion.objects.filter(
        model__in=seen_models(caller),
        model__name__istartswith=asked["model"],
        number=int(asked["number"]),
    ).select_related("model")
    for one in rows.only("number", "state", "model__name").order_by("model__name")[:MOST]:
        place = reverse("admin:registry_modelversion_change", args=[one.pk])
        yield Found(str(one), f"Version, {one.state}", place, "layers")


def _models(caller: Caller, term: str) -> Iterator[Found]:
    rows = seen_models(caller).filter(name__icontains=term).order_by("name")
    for one in rows[:MOST]:
        place = reverse("admin:registry_registeredmodel_change", args=[one.pk])
        yield Found(one.name, f"Model of {one.team.name}", place, "deployed_code")


def _endpoints(caller: Caller, term: str) -> Iterator[Found]:
    """Find by model, or by model and environment: *wine production*."""
    name, _, rest = term.partition(" ")
    places = [one.value for one in Environment if rest and one.value.startswith(rest.lower())]
    rows = Endpoint.objects.filter(model__in=seen_models(caller), model__name__icontains=name)
    rows = rows.filter(environment__in=places) if rest else rows.filter(environment="production")
    for one in rows.select_related("model").order_by("model__name", "-environment")[:MOST]:
        place = reverse("admin:registry_endpoint_change", args=[one.pk])
        yield Found(str(one), "Endpoint", place, "route")


def _keys(caller: Caller, term: str) -> Iterator[Found]:
    teams = teams_of(caller).values_list("pk", flat=True) if caller.sees_all else caller.roles
    managed = [team for team in teams if may(caller, Action.KEY_MANAGE, Thing(team))]
    fits = Q(name__icontains=term)
    asked = _KEY_ID.match(term)
    if asked is not None:
        fits |= Q(pk__startswith=asked["id"])
    for one in keys_of(caller, managed=managed).filter(fits).order_by("name")[:MOST]:
        yield Found(one.name, f"Key {one.prefix}…{one.last4}", _key_place(one), "key")


def _key_place(key: ApiKey) -> str:
    return reverse("admin:accounts_apikey_change", args=[key.pk])


def _teams(caller: Caller, term: str) -> Iterator[Found]:
    fits = Q(name__icontains=term) | Q(slug__icontains=term)
    for one in teams_of(caller).filter(fits).order_by("name")[:MOST]:
        place = reverse("admin:accounts_team_change", args=[one.pk])
        yield Found(one.name, "Team", place, "groups")


def _people(caller: Caller, term: str) -> Iterator[Found]:
    if not caller.sees_all:
        return
    fits = Q(username__icontains=term) | Q(email__icontains=term) | Q(last_name__icontains=term)
    for one in User.objects.filter(fits).order_by("username")[:MOST]:
        place = reverse("admin:accounts_user_change", args=[one.pk])
        yield Found(one.username, one.email or "Person", place, "person")


def _pages(caller: Caller, term: str) -> Iterator[Found]:
    audits = any(may(caller, Action.AUDIT_READ, Thing(team)) for team in caller.roles)
    pages = PAGES + (ADMIN_PAGES if caller.sees_all else ())
    pages += (AUDIT_PAGE,) if audits or caller.sees_all else ()
    for title, kind, icon, name in pages:
        if term.lower() in title.lower():
            try:
                yield Found(title, kind, reverse(name), icon)
            except NoReverseMatch:  # a role of the platform without that page
                continue
