"""The numbers of a process: for those who may read them, even while the database is away."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from apps.accounts.policies import Scope
from apps.core import events, metrics
from apps.core.models import Event, EventSeal
from tests.factories.accounts import SYSTEM, api_key, bearer, make_key, make_team, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin() -> dict[str, str]:
    return dict(bearer(make_user("boss", is_admin=True)))


def page(headers: Any) -> str:
    reply = Client().get("/metrics", headers=headers)
    assert reply.status_code == 200, reply.content
    assert reply["Content-Type"] == metrics.MEDIA_TYPE
    return reply.content.decode()


def number(text: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, f"{name} is not in the page"
    return float(found[1])


def test_the_numbers_need_the_scope() -> None:
    owner, team = make_user("boss", is_admin=True), make_team("blue")
    _, reads = make_key(team, owner, scopes=(Scope.METRICS_READ,))
    _, other = make_key(team, owner, scopes=(Scope.PREDICT,))
    assert Client().get("/metrics").status_code == 401
    assert Client().get("/metrics", headers=api_key(other)).status_code == 403
    assert "mlplatform_" in page(api_key(reads))


def test_a_process_that_serves_knows_its_readers_from_memory(settings: Any) -> None:
    settings.SERVES = True
    reply = Client().get("/metrics", headers=api_key("mlp_live_x"))
    assert reply.status_code == 503, "no snapshot here, and the database is not asked"


def test_a_refused_call_is_counted_by_its_reason(admin: dict[str, str]) -> None:
    name = 'mlplatform_refused_total{reason="not_authenticated"}'
    Client().get("/api/v1/models")
    before = number(page(admin), name)
    Client().get("/api/v1/models")
    assert number(page(admin), name) == before + 1


def test_the_age_of_what_is_not_in_the_chain_yet_is_shown(admin: dict[str, str]) -> None:
    name = "mlplatform_events_unsealed_seconds"
    events.seal_everything()
    assert number(page(admin), name) == 0
    old = timezone.now() - timedelta(hours=30)
    Event.objects.create(
        at=old, verb="x.y", actor_kind="system", target_kind="core.eventseal", target_id="1"
    )
    assert 30 * 3600 <= number(page(admin), name) < 31 * 3600


def test_a_database_that_is_away_makes_one_number_unknown_and_no_error(
    admin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise OperationalError("away")

    monkeypatch.setattr(EventSeal.objects, "order_by", away)
    assert "mlplatform_events_unsealed_seconds NaN" in page(admin)


def test_no_label_takes_what_a_client_sent(admin: dict[str, str]) -> None:
    Client().get("/api/v1/models/canary-name", headers={"X-API-Key": "canary-key"})
    assert "canary" not in page(admin)


def test_a_new_event_is_in_the_chain_after_one_round(admin: dict[str, str]) -> None:
    events.record("plan.changed", actor=SYSTEM, target=make_team("red"))
    events.seal_pending()
    assert number(page(admin), "mlplatform_events_unsealed_seconds") == 0
