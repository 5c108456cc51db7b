"""Who may open and press what in the admin: the shape of the table's rows, and its world.

The columns are nobody, a maintainer of another team (stranger), viewer, contributor and maintainer
of the team whose things the row is about, and a platform admin. ``in`` stands for the way to the
sign-in page; the other words are statuses. A row's ``route`` is written as the URLconf writes it.

``marks`` say what is drawn for whom: text on the page -> the callers who read it. So a button, a
link or a file that a role must not see is part of the table as well.

Every call is undone before the next one comes, so all meet the same world.
"""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.db import transaction
from django.test import Client, override_settings
from django.utils import timezone

from apps.accounts.models import ApiKey, Membership, User
from apps.core import work
from apps.core.events import Actor
from apps.core.models import Event
from apps.inference.models import PredictionRejected
from apps.inference.services import erasure
from apps.monitoring.models import Notification
from apps.registry.models import Release
from apps.registry.services import aliases, lifecycle, releases
from tests.contracts.access import World
from tests.factories.accounts import make_key
from tests.factories.inference import prediction
from tests.factories.registry import endpoint_of, make_model, make_release, make_version

CALLERS = ("nobody", "stranger", "viewer", "contributor", "maintainer", "admin")
SIGN_IN = "in"
Fill = Mapping[str, Any] | Callable[[World], Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    """One address and method of the admin, and what each caller gets there."""

    method: str
    route: str
    expected: str
    fill: Fill = field(default_factory=dict)
    form: Mapping[str, Any] | Callable[[World], Mapping[str, Any]] = field(default_factory=dict)
    query: str = ""
    path: str = ""
    marks: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path or self.route}{self.query}"

    @cached_property
    def statuses(self) -> dict[str, str]:
        told = self.expected.split()
        if len(told) != len(CALLERS):
            raise ValueError(f"{self}: {len(told)} words for {len(CALLERS)} callers")
        return dict(zip(CALLERS, told, strict=True))

    def url(self, world: World) -> str:
        if self.path:
            return f"/{self.path}{self.query}"
        values = self.fill(world) if callable(self.fill) else self.fill
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda part: str(values[part[1]]), self.route)
        return f"/{path}{self.query}"


def settle(world: World) -> World:
    """Give the blue team one of each thing that the admin shows, and open its doors to all."""
    User.objects.update(is_staff=True)
    things, people = world.things, world.users
    version = make_version(make_model("wine", team=world.blue))
    make_version(version.model)
    aliases.set_alias(version.model, "champion", version=1, actor=Actor.system())
    endpoint = endpoint_of(version.model)
    for number in (1, 2):
        releases.make_release(endpoint, version=number, reason="x", actor=Actor.system())
    with override_settings(REQUIRE_APPROVAL=True):
        things["waiting"] = make_release(version)
    key, _ = make_key(world.blue, people["contributor"])
    ApiKey.objects.filter(pk=key.pk).update(name="blue-lorry")
    deprecated = make_version(version.model)
    lifecycle.deprecate(deprecated, actor=Actor.system())
    things |= {
        "model": version.model,
        "version": version,
        "free": make_version(version.model),
        "endpoint": endpoint,
        "replaced": Release.objects.get(endpoint=endpoint, number=1),
        "key": key,
        "deprecated": deprecated,
        "prediction": prediction(team_id=world.blue.pk),
        "event": Event.objects.filter(team_id=world.blue.pk).latest("pk"),
        "work": work.enqueue("registry.validate_version", subject=version, version_id=version.pk),
        "rejected": PredictionRejected.objects.create(
            sha256="0" * 64, error="it was no JSON", payload=b"{}", at=timezone.now()
        ),
        "erasure": erasure.ask_erasure(
            "u-7", team_id=world.blue.pk, reason="blue asked for it", actor=Actor.system()
        ),
        "member": Membership.objects.get(user=people["viewer"], team=world.blue),
        "notification": Notification.objects.create(
            person=people["viewer"],
            event_id=Event.objects.latest("pk").pk,
            kind=Notification.Kind.RELEASE_LIVE,
            title="x",
            url="/admin/",
            created=timezone.now(),
        ),
    }
    return world


def clients_of(world: World) -> Mapping[str, Client]:
    """Return a signed-in browser for each caller."""
    made = {}
    for caller in CALLERS:
        made[caller] = Client(raise_request_exception=False)
        if caller != "nobody":
            made[caller].force_login(world.users[caller])
    return made


def seen(client: Client, row: Row, world: World) -> tuple[str, frozenset[str]]:
    """Make one call and undo it; return its status in the table's words, and the marks drawn."""
    form = row.form(world) if callable(row.form) else row.form
    cookies = copy.copy(client.cookies)
    with transaction.atomic():
        ask = client.get if row.method == "GET" else client.post
        reply = ask(row.url(world), dict(form))
        text = _text(reply)
        transaction.set_rollback(True)
    client.cookies = cookies  # whoever signed out is here again
    return _word(reply), frozenset(one for one in row.marks if _written(one, world) in text)


def wrong_cells(row: Row, world: World, clients: Mapping[str, Client]) -> dict[str, Any]:
    """Return the cells of a row that are not as the table says, with what was found."""
    wrong: dict[str, Any] = {}
    for caller, status in row.statuses.items():
        found, marks = seen(clients[caller], row, world)
        wanted = frozenset(mark for mark, whose in row.marks.items() if caller in whose.split())
        if found != status:
            wrong[caller] = f"{found} and not {status}"
        elif marks != wanted:
            wrong[caller] = f"reads {sorted(marks)} and not {sorted(wanted)}"
    return wrong


def _written(mark: str, world: World) -> str:
    """Fill in the numbers of things, as in ``/modelversion/{version}/release/``."""
    numbers = {name: thing.pk for name, thing in world.things.items()}
    return mark.format(**numbers, blue=world.blue.pk) if "{" in mark else mark


def _word(reply: Any) -> str:
    is_way_in = reply.status_code == 302 and "/login" in reply["Location"]
    return SIGN_IN if is_way_in else str(reply.status_code)


def _text(reply: Any) -> str:
    if reply.streaming:
        return b"".join(reply.streaming_content).decode("utf-8", "replace")
    return str(reply.content.decode("utf-8", "replace"))


def screen(
    table: str,
    pk: Callable[[World], Any],
    *,
    view: str,
    add: str,
    change: str,
    everything: str = "in 200 200 200 200 200",
    marks: Mapping[str, str] | None = None,
    listed: Mapping[str, str] | None = None,
) -> Sequence[Row]:
    """Return the rows of the seven pages that each screen of the admin has.

    Args:
        table: ``app/model``, as addresses have it.
        pk: The row that the pages are about.
        view: Who opens a row's page and its history.
        add: Who opens the page where one is made.
        change: Who may send a row's form.
        everything: Who opens the list; each sees the own teams' rows there.
        marks: What a row's page draws for whom.
        listed: What the list, as a page and as CSV, draws for whom.
    """
    at = f"admin/{table}"
    one = f"{at}/<path:object_id>"
    fill: Fill = lambda world: {"object_id": pk(world)}  # noqa: E731 - one short rule
    nobody_deletes = "in 403 403 403 403 403"
    # What one does not see is not there to be deleted either.
    hidden = " ".join(
        "404" if seen == "404" else never
        for seen, never in zip(view.split(), nobody_deletes.split(), strict=True)
    )
    return [
        Row("GET", f"{at}/", everything, marks=listed or {}),
        Row("GET", f"{at}/csv/", everything, marks=listed or {}),
        Row("GET", f"{at}/add/", add),
        Row("POST", f"{at}/add/", add),
        Row("GET", f"{one}/change/", view, fill, marks=marks or {}),
        Row("POST", f"{one}/change/", change, fill),
        Row("GET", f"{one}/history/", view, fill),
        Row("GET", f"{one}/delete/", hidden, fill),
        Row("POST", f"{one}/delete/", hidden, fill, {"post": "yes"}),
        Row("GET", f"{one}/", "in 302 302 302 302 302", fill),
    ]
