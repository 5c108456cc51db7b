"""Limits at the doors of the API: the counters of predictions, told in the same headers."""

from typing import Any

import pytest
from django.test import Client

from apps.accounts import wiring
from apps.accounts.counters.memory import MemoryCounters
from apps.accounts.limits import Ceilings, Limiter
from apps.accounts.models import Plan
from apps.accounts.policies import Scope
from apps.accounts.snapshot import Role
from apps.core.errors import RateLimited
from tests.factories.accounts import api_key, bearer, make_key, make_member, make_team
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.django_db
LIMITS = {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "RateLimit-Policy"}
MODELS = "/api/v1/models"


@pytest.fixture
def limiter(monkeypatch: pytest.MonkeyPatch) -> Limiter:
    """Count in this process, by a clock that stands still."""
    made = Limiter(MemoryCounters(), clock=FakeClock(), ceilings=Ceilings(refused=2))
    monkeypatch.setattr(wiring, "_limiter", made)
    return made


@pytest.fixture
def plan() -> Plan:
    return Plan.objects.create(
        name="three", title="Three", requests_per_minute=3, rows_per_minute=1
    )


@pytest.fixture
def key(plan: Plan) -> dict[str, str]:
    team = make_team()
    owner = make_member(team, Role.MAINTAINER)
    scopes = [Scope.MODELS_READ.value, Scope.PREDICT.value]
    return api_key(make_key(team, owner, scopes=scopes, plan="three")[1])


def test_calls_with_a_key_are_counted_and_refused(limiter: Limiter, key: dict[str, str]) -> None:
    replies = [Client().get(MODELS, headers=key) for _ in range(4)]
    assert [one.status_code for one in replies] == [200, 200, 200, 429]
    assert [one["RateLimit-Remaining"] for one in replies] == ["2", "1", "0", "0"]
    assert replies[3]["Content-Type"] == "application/problem+json"
    assert replies[3]["Retry-After"] == replies[3]["RateLimit-Reset"]
    assert "The plan three allows 3 requests a minute" in replies[3].json()["detail"]


def test_calls_with_a_token_count_against_the_persons_plan(limiter: Limiter, plan: Plan) -> None:
    user = make_member(make_team(), Role.VIEWER)
    type(user).objects.filter(pk=user.pk).update(plan=plan)
    token = bearer(user)
    replies = [Client().get(MODELS, headers=token) for _ in range(4)]
    assert [one.status_code for one in replies] == [200, 200, 200, 429]


def test_errors_say_how_the_caller_stands_too(limiter: Limiter, key: dict[str, str]) -> None:
    missing = Client().get(f"{MODELS}/none", headers=key)
    forbidden = Client().post("/api/v1/teams", {}, "application/json", headers=key)
    assert (missing.status_code, forbidden.status_code) == (404, 403)
    assert set(missing.headers) >= LIMITS
    assert forbidden["RateLimit-Remaining"] == "1"


def test_rows_are_no_business_of_these_doors(limiter: Limiter, key: dict[str, str]) -> None:
    replies = [Client().get(MODELS, headers=key) for _ in range(2)]
    assert [one.status_code for one in replies] == [200, 200]
    assert replies[0]["RateLimit-Policy"] == '"requests";q=3;w=60'


@pytest.mark.parametrize("path", ["/health", "/health/live", "/api/schema", "/docs"])
def test_health_and_docs_are_not_counted(
    limiter: Limiter, key: dict[str, str], settings: Any, path: str
) -> None:
    settings.PUBLIC_DOCS = True
    for _ in range(4):
        reply = Client().get(path, headers=key)
        assert reply.status_code != 429
        assert not set(reply.headers) & LIMITS


def test_an_address_with_bad_credentials_waits_here_too(limiter: Limiter) -> None:
    answers = [
        Client().get(MODELS, headers=headers).status_code
        for headers in ({"X-API-Key": "nonsense"}, {}, {}, {"X-API-Key": "nonsense"})
    ]
    assert answers == [403, 401, 429, 429]


def test_both_doors_share_what_a_caller_may_use(
    limiter: Limiter, key: dict[str, str], plan: Plan
) -> None:
    """What the API took is gone for predictions as well."""
    from apps.accounts.callers import caller_of
    from apps.accounts.selectors import DatabaseDirectory, token_verifier

    for _ in range(3):
        Client().get(MODELS, headers=key)
    caller = caller_of(
        {"x-api-key": key["X-API-Key"]},
        directory=DatabaseDirectory(),
        verifier=token_verifier(),
        now=0,
        address=None,
    )
    with pytest.raises(RateLimited):
        limiter.enter(caller, None)
