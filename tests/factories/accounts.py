"""Users, teams, members and keys as the services make them, so that the snapshot knows them too."""

import itertools
from collections.abc import Sequence

from apps.accounts.keys import KeyKind
from apps.accounts.models import ApiKey, Team, User
from apps.accounts.services import keys, people, sessions, teams
from apps.accounts.snapshot import Role
from apps.core.events import Actor

PASSWORD = "correct-horse-battery-staple"
SYSTEM = Actor.system()
_number = itertools.count(1)


def make_user(username: str = "", *, is_admin: bool = False, password: str = PASSWORD) -> User:
    name = username or f"user{next(_number)}"
    return people.create_user(
        username=name,
        email=f"{name}@example.org",
        password=password,
        actor=SYSTEM,
        is_admin=is_admin,
    )


def make_team(slug: str = "") -> Team:
    slug = slug or f"team-{next(_number)}"
    return teams.create_team(slug=slug, name=slug.title(), actor=SYSTEM)


def make_member(team: Team, role: Role, username: str = "") -> User:
    user = make_user(username)
    teams.add_member(team, user, role=role, actor=SYSTEM)
    return user


def make_key(
    team: Team,
    owner: User,
    *,
    scopes: Sequence[str] = ("predict",),
    kind: KeyKind = KeyKind.LIVE,
    models: Sequence[str] = (),
    environments: Sequence[str] = ("production",),
    plan: str | None = "unlimited",
    networks: Sequence[str] = (),
) -> tuple[ApiKey, str]:
    """Return the key's row and its text; without a plan the owner's, else none that limits."""
    wish = keys.KeyWish(
        name="a key",
        scopes=scopes,
        kind=kind,
        models=models,
        environments=environments,
        plan=plan,
        networks=networks,
    )
    return keys.issue_key(team, owner=owner, wish=wish, actor=SYSTEM)


def bearer(user: User) -> dict[str, str]:
    """Return the headers of a signed-in user."""
    user.refresh_from_db()
    return {"Authorization": f"Bearer {sessions.access_token(user)}"}


def api_key(text: str) -> dict[str, str]:
    """Return the headers of a program with a key."""
    return {"X-API-Key": text}
