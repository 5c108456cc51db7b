"""Who runs the platform learns that the audit record does not hold; nobody else does."""

import pytest
from django.test import Client

from apps.accounts.models import User
from apps.accounts.snapshot import Role
from apps.core import chain, events, write_once
from apps.core.events import Actor
from apps.core.models import Event
from apps.monitoring.rules import news_of
from tests.factories.accounts import make_member, make_team, make_user

pytestmark = pytest.mark.django_db
SYSTEM = Actor.system()


def broken_chain() -> Event:
    events.seal_everything()
    with write_once.suspended():
        Event.objects.filter(seal__seq=1).update(reason="forged")
    return chain.record_verdict(chain.verify_chain(), actor=SYSTEM)


def test_a_broken_chain_is_news_for_platform_admins_alone() -> None:
    boss = make_user("boss", is_admin=True)
    make_member(make_team("blue"), Role.MAINTAINER, "ada")
    (news,) = news_of(broken_chain())
    assert (news.person_id, news.title) == (boss.pk, "The audit chain is broken at 1")
    assert "altered" in news.body


def test_an_alarm_is_news_too() -> None:
    make_user("boss", is_admin=True)
    event = chain.record_alarm(["The chain is not anchored as often as it should be."])
    assert event is not None
    (news,) = news_of(event)
    assert "not anchored" in news.body


def test_home_says_it_to_platform_admins_until_it_is_mended() -> None:
    boss = make_user("boss", is_admin=True)
    ada = make_member(make_team("blue"), Role.MAINTAINER, "ada")
    assert "Audit chain</a>" not in home(boss)
    broken_chain()
    assert "Audit chain</a>" in home(boss)
    assert "Audit chain</a>" not in home(ada)
    with write_once.suspended():
        Event.objects.filter(seal__seq=1).update(reason="")
    events.seal_everything()
    chain.record_verdict(chain.verify_chain(), actor=SYSTEM)
    assert "Audit chain</a>" not in home(boss)


def home(user: User) -> str:
    client = Client()
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client.force_login(user)
    return client.get("/admin/").content.decode()
