"""Beat's short tasks of the ground floor."""

from celery import shared_task

from apps.core import anchors, chain, events, work
from apps.core.chain import CHAIN_ID
from apps.core.events import Actor
from apps.core.models import EventSeal


@shared_task(name="core.tick_seal_events", ignore_result=True, expires=5)
def tick_seal_events() -> None:
    events.seal_pending()


@shared_task(name="core.tick_seal_old_events", ignore_result=True, expires=300)
def tick_seal_old_events() -> None:
    """Seal what lies further back than the tick of every second looks: it was down for long."""
    events.seal_everything()


@shared_task(name="core.tick_reap_work", ignore_result=True, expires=30)
def tick_reap_work() -> None:
    work.reap()


@shared_task(name="core.tick_anchor_audit", ignore_result=True, expires=1800)
def tick_anchor_audit() -> None:
    """Write the head of the chain down outside the database, and into the log."""
    anchors.write()


@shared_task(name="core.tick_watch_audit", ignore_result=True, expires=240)
def tick_watch_audit() -> None:
    """Tell people, once a day, of what lets somebody change the record unseen."""
    found = chain.alarms()
    if found:
        chain.record_alarm(found)


@shared_task(name="core.tick_verify_audit", ignore_result=True, expires=3600)
def tick_verify_audit() -> None:
    """Have a worker walk the chain every night; a tick must be short."""
    system = Actor.system()
    work.enqueue(
        "core.verify_audit",
        subject=EventSeal(seq=CHAIN_ID),
        actor_kind=system.kind,
        actor_id=system.id,
        actor_name=system.name,
    )


@work.background("core.verify_audit", attempts=2)
def verify_audit(actor_kind: str, actor_id: str, actor_name: str) -> None:
    """Walk the chain, for beat or whoever asked on the audit page; write down what was found."""
    work.report("Sealing what was left")
    events.seal_everything()
    work.report("Walking the chain")
    report = chain.verify_chain()
    chain.record_verdict(report, actor=Actor(actor_kind, actor_id, actor_name))
