"""What scopes, roles and environments mean, in a sentence each."""

from collections.abc import Iterable, Mapping

from apps.accounts.keys import KeyKind
from apps.accounts.models import Plan
from apps.accounts.policies import ENVIRONMENTS, Scope
from apps.accounts.snapshot import Role

SCOPES: Mapping[Scope, tuple[str, str]] = {
    Scope.PREDICT: ("Predict", "Ask models for predictions."),
    Scope.FEEDBACK_WRITE: ("Report outcomes", "Tell how predictions turned out."),
    Scope.BATCH_WRITE: ("Run batches", "Start and stop batch predictions."),
    Scope.MODELS_READ: (
        "Read models",
        "See models, versions, releases; download files, if its owner may.",
    ),
    Scope.MODELS_WRITE: ("Write models", "Make models, upload versions, change settings."),
    Scope.DEPLOY: ("Release", "Release, approve and roll back, as far as its owner may."),
    Scope.LOGS_READ: ("Read predictions", "See recorded inputs and answers."),
    Scope.EXPERIMENTS_READ: ("Read experiments", "See experiments and their results."),
    Scope.EXPERIMENTS_WRITE: ("Write experiments", "Make, start and stop experiments."),
    Scope.METRICS_READ: ("Read metrics", "Scrape the platform's own metrics."),
    Scope.ADMIN: ("Everything", "Manage keys, members and teams. Maintainers only."),
}
# Scopes of doors that do not exist yet are not offered; a key that has one keeps it.
OFFERED = (
    Scope.PREDICT,
    Scope.MODELS_READ,
    Scope.MODELS_WRITE,
    Scope.DEPLOY,
    Scope.LOGS_READ,
    Scope.METRICS_READ,
    Scope.ADMIN,
)
ROLES: Mapping[Role, tuple[str, str]] = {
    Role.VIEWER: ("Viewer", "Looks at models, predictions and results; asks for predictions."),
    Role.CONTRIBUTOR: (
        "Contributor",
        "Also uploads versions, tries them, releases to staging and makes keys.",
    ),
    Role.MAINTAINER: (
        "Maintainer",
        "Also releases to production, approves, rolls back, and manages members and keys.",
    ),
}
# Scopes by what they are about.
SCOPE_GROUPS: tuple[tuple[str, tuple[Scope, ...]], ...] = (
    ("Predictions", (Scope.PREDICT, Scope.BATCH_WRITE, Scope.FEEDBACK_WRITE, Scope.LOGS_READ)),
    ("Models", (Scope.MODELS_READ, Scope.MODELS_WRITE, Scope.DEPLOY)),
    ("Experiments", (Scope.EXPERIMENTS_READ, Scope.EXPERIMENTS_WRITE)),
    ("Platform", (Scope.METRICS_READ, Scope.ADMIN)),
)
KINDS: Mapping[KeyKind, tuple[str, str]] = {
    KeyKind.LIVE: ("Live", "Works in the environments chosen below."),
    KeyKind.TEST: ("Test", "Never reaches production, whatever is chosen."),
}
# Production first: most keys are for it.
SHOWN_ENVIRONMENTS = tuple(reversed(ENVIRONMENTS))


def scope_words(scopes: Iterable[str]) -> str:
    """Say scopes by their short names."""
    known = {scope.value: name for scope, (name, _) in SCOPES.items()}
    return ", ".join(known.get(one, one) for one in scopes)


def plan_words(plan: Plan) -> str:
    """Say a plan's numbers: *600 requests/min, 6,000 predictions/min; each key by itself*."""
    numbers = (
        (plan.requests_per_minute, "requests/min"),
        (plan.rows_per_minute, "predictions/min"),
        (plan.rows_per_day, "predictions/day"),
        (plan.rows_per_call, "rows/call"),
    )
    told = [f"{number:,} {unit}" for number, unit in numbers if number is not None]
    if not told:
        return "No limits."
    return f"{', '.join(told)}; {plan.get_counted_by_display()}."


def network_words(networks: Iterable[str]) -> str:
    """Say from where a key may be used."""
    return ", ".join(networks) or "anywhere"


def reach_words(models: Iterable[str]) -> str:
    """Say which models a key may use."""
    return ", ".join(models) or "all models of the team"
