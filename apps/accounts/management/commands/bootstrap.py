"""Make what a new installation needs before anybody can sign in; harmless a second time."""

import json
import os
import secrets
from dataclasses import dataclass

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from apps.accounts.models import Team, User
from apps.accounts.selectors import user_called
from apps.accounts.services import keys, people, plans, sessions, teams
from apps.core.errors import PlatformError
from apps.core.events import Actor

DEMO_TEAM = "demo"


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """Who the admin is; the password only when it was just made up here."""

    admin: User
    password: str | None
    is_new: bool


class Command(BaseCommand):
    help = (
        "Make the admin user (DJANGO_SUPERUSER_USERNAME, _EMAIL, _PASSWORD; else `admin` with a "
        "random password) and the team `demo`, where they are not there yet."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--json", action="store_true", help="one line for programs, with an access token"
        )

    def handle(self, *, json: bool, **options: object) -> None:
        try:
            done = bootstrap()
        except PlatformError as error:
            words = [error.message, *(one.detail for one in error.problems)]
            raise CommandError(" ".join(words)) from error
        self.stdout.write(_json_line(done) if json else _text(done))


def bootstrap() -> Bootstrapped:
    """Make what is missing, and tell serving what it does not know.

    Each in a transaction of its own: like everybody else, it takes rows before serving's clock.
    """
    with transaction.atomic():
        done = _admin()
        if not Team.objects.filter(slug=DEMO_TEAM).exists():
            teams.create_team(slug=DEMO_TEAM, name="Demo", actor=Actor.operator())
    plans.publish_stale()
    # `createsuperuser` and `changepassword` are Django's and tell serving nothing; an older writer
    # knew no plans.
    people.publish_stale()
    keys.publish_stale()
    return done


def _admin() -> Bootstrapped:
    name = os.environ.get("DJANGO_SUPERUSER_USERNAME") or "admin"
    known = user_called(name)
    if known is not None:
        return Bootstrapped(known, None, is_new=False)
    given = os.environ.get("DJANGO_SUPERUSER_PASSWORD")
    password = given or secrets.token_urlsafe(15)
    admin = people.create_user(
        username=name,
        email=os.environ.get("DJANGO_SUPERUSER_EMAIL") or f"{name}@localhost.localdomain",
        password=password,
        actor=Actor.operator(),
        is_admin=True,
    )
    return Bootstrapped(admin, None if given else password, is_new=True)


def _json_line(done: Bootstrapped) -> str:
    line = {"admin": done.admin.username, "token": sessions.access_token(done.admin)}
    if done.password is not None:
        line["password"] = done.password
    return json.dumps(line)


def _text(done: Bootstrapped) -> str:
    if not done.is_new:
        return f"The admin user `{done.admin.username}` is there already."
    if done.password is None:
        return f"Made the admin user `{done.admin.username}` with the password that was given."
    return f"Made the admin user `{done.admin.username}`. Password (said only now): {done.password}"
