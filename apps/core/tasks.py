"""Beat's short tasks of the ground floor."""

from typing import Any

from celery import shared_task

from apps.core import events, work
from apps.core.events import Actor
from apps.core.models import EventSeal


@shared_task(name="core.tick_seal_events", ignore_result=True, expires=5)
def tick_seal_events() -> None:
    events.seal_pending()


@shared_task(name="core.tick_seal_old_events", ignore_result=True, expires=300)
def tick_seal_old_events() -> None:
    """Seal what lies further back than the tick of every second looks: it was down for long."""
    events.seal_everything()


@shared_task(name="core.tick_drop_old_work", ignore_result=True, expires=3600)
def tick_drop_old_work() -> None:
    work.drop_old()


@shared_task(name="core.tick_reap_work", ignore_result=True, expires=30)
def tick_reap_work() -> None:
    work.reap()


@work.background("core.verify_audit", attempts=2)
def verify_audit(actor_kind: str, actor_id: str, actor_name: str) -> None:
    """Walk the chain for whoever asked on the audit page, and write down what was found."""
    work.report("Sealing what was left")
    events.seal_everything()
    work.report("Walking the chain")
    found = events.verify_chain()
    facts: dict[str, Any] = {"sealed": found.sealed, "head": found.head, "unsealed": found.unsealed}
    if found.first_break is not None:
        facts |= {"broken_at": found.first_break.seq, "what": found.first_break.what}
    events.record(
        "audit.broken" if found.first_break else "audit.verified",
        actor=Actor(actor_kind, actor_id, actor_name),
        target=EventSeal(seq=found.sealed),
        **facts,
    )
