"""Reads: the database as a directory, a user as caller, lists of teams and keys."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from django.conf import settings
from django.contrib.auth.models import Permission
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from apps.accounts.callers import Caller, caller_of_person
from apps.accounts.models import ApiKey, Membership, Plan, Team, User
from apps.accounts.snapshot import TOKEN, CountedBy, KeyBody, PersonBody, PlanBody, Role
from apps.accounts.tokens import (
    TokenSigner,
    TokenVerifier,
    kept_private_pem,
    kept_public_pem,
    keys_stamp,
    public_pem_of,
    public_pems_in,
)
from apps.core.events import Actor
from apps.core.models import SnapshotEntry

R = TypeVar("R", ApiKey, User)

# From when on people are told that a key ends.
EXPIRES_SOON = timedelta(days=14)


class DatabaseDirectory:
    """What the control plane's doors ask: always the newest truth, at a few queries a look.

    One is made for each request: it remembers the plans that came with the rows it read.
    """

    def __init__(self) -> None:
        self._plans: dict[str, PlanBody] = {}

    def key(self, key_id: str) -> KeyBody | None:
        rows = ApiKey.objects.select_related("plan")
        row = rows.filter(pk=key_id, revoked_at__isnull=True).first()
        return key_body(self._noted(row)) if row else None

    def person(self, user_id: int) -> PersonBody | None:
        row = User.objects.select_related("plan").filter(pk=user_id).first()
        return person_body(self._noted(row)) if row else None

    def plan(self, name: str) -> PlanBody | None:
        return self._plans.get(name)

    def is_revoked(self, token_id: str) -> bool:
        return SnapshotEntry.objects.filter(kind=TOKEN, key=token_id, deleted=False).exists()

    def _noted(self, row: R) -> R:
        self._plans[str(row.plan_id)] = plan_body(row.plan)
        return row


def key_body(key: ApiKey) -> KeyBody:
    """Return a key as serving knows it. A test key has no production, whatever its row says."""
    environments = key.environments
    if key.kind == ApiKey.Kind.TEST:
        environments = [one for one in environments if one != "production"]
    return KeyBody(
        id=key.pk,
        sha256=key.sha256,
        team_id=key.team_id,
        owner_id=key.owner_id,
        scopes=tuple(key.scopes),
        models=tuple(key.model_names),
        environments=tuple(environments),
        expires=int(key.expires_at.timestamp()),
        plan=str(key.plan_id),
        networks=tuple(key.networks),
    )


def person_body(user: User) -> PersonBody:
    """Return a user as serving knows them."""
    roles = Membership.objects.filter(user=user).values_list("team_id", "role")
    granted = Permission.objects.filter(user=user).values_list(
        "content_type__app_label", "codename"
    )
    return PersonBody(
        id=user.pk,
        username=user.username,
        is_admin=user.is_superuser,
        is_active=user.is_active,
        token_version=user.token_version,
        roles={team: Role(role) for team, role in roles},
        permissions=tuple(sorted(f"{app}.{name}" for app, name in granted)),
        plan=str(user.plan_id),
    )


def plan_body(plan: Plan) -> PlanBody:
    """Return a plan as serving knows it."""
    return PlanBody(
        name=plan.name,
        requests_per_minute=plan.requests_per_minute,
        rows_per_minute=plan.rows_per_minute,
        rows_per_day=plan.rows_per_day,
        rows_per_call=plan.rows_per_call,
        counted_by=CountedBy(plan.counted_by),
    )


def caller_of_user(user: User) -> Caller:
    """Return a signed-in user of a session (pages, admin) as caller."""
    return caller_of_person(person_body(user))


def actor_of(caller: Caller) -> Actor:
    """Return who is written into events."""
    if caller.key is not None:
        return Actor("key", caller.key.id, f"{caller.username} (key {caller.key.id})")
    return Actor("user", str(caller.user_id), caller.username)


def actor_of_user(user: User) -> Actor:
    """Return a signed-in user as the one who acts."""
    return Actor("user", str(user.pk), user.username)


def permissions_named(names: Iterable[str]) -> QuerySet[Permission]:
    """Return permissions by their names, such as `registry.download_artifact`."""
    wanted = Q(pk__in=())
    for name in names:
        app, _, codename = name.partition(".")
        wanted |= Q(content_type__app_label=app, codename=codename)
    return Permission.objects.filter(wanted).select_related("content_type")


def user_called(name: str) -> User | None:
    """Find a user by name or by email address (in any case)."""
    wanted = Q(email__iexact=name) if "@" in name else Q(username=name)
    return User.objects.filter(wanted).first() if name else None


def teams_of(caller: Caller) -> QuerySet[Team]:
    """Return the teams that exist for a caller."""
    if caller.sees_all:
        return Team.objects.all()
    ids = set(caller.roles)
    if caller.key is not None:
        ids = {caller.key.team_id}
    return Team.objects.filter(pk__in=ids)


def plans_with_use() -> QuerySet[Plan]:
    """Return plans, and how many keys and people are on each."""
    keys = ApiKey.objects.filter(plan=OuterRef("pk")).order_by().values("plan")
    people = User.objects.filter(plan=OuterRef("pk")).order_by().values("plan")
    return Plan.objects.annotate(
        key_count=Coalesce(Subquery(keys.annotate(n=Count("pk")).values("n")), 0),
        person_count=Coalesce(Subquery(people.annotate(n=Count("pk")).values("n")), 0),
    )


def members_of(team: Team) -> QuerySet[Membership]:
    """Return who is in a team."""
    return Membership.objects.filter(team=team).select_related("user")


def keys_of(caller: Caller, *, managed: Iterable[int]) -> QuerySet[ApiKey]:
    """Return a caller's own keys and those of the teams whose keys the caller manages."""
    mine = Q(owner_id=caller.user_id) | Q(team_id__in=list(managed))
    keys = ApiKey.objects.filter(mine, team__in=teams_of(caller))
    return keys.select_related("team", "owner", "plan")


def key_state(key: ApiKey, now: datetime) -> str:
    """Return a key's state as a word: active, unused, expires soon, expired, revoked."""
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at <= now:
        return "expired"
    if key.expires_at <= now + EXPIRES_SOON:
        return "expires soon"
    # The warning goes when the key is used again.
    return "active" if key.warned_at is None else "unused"


def keys_in_state(keys: QuerySet[ApiKey], state: str, now: datetime) -> QuerySet[ApiKey]:
    """Narrow keys to one of the words of ``key_state``."""
    if state == "revoked":
        return keys.filter(revoked_at__isnull=False)
    living = keys.filter(revoked_at__isnull=True)
    if state == "expired":
        return living.filter(expires_at__lte=now)
    if state == "expires soon":
        return living.filter(expires_at__gt=now, expires_at__lte=now + EXPIRES_SOON)
    lasting = living.filter(expires_at__gt=now + EXPIRES_SOON)
    return lasting.filter(warned_at__isnull=state != "unused")


def token_verifier() -> TokenVerifier:
    """Return what reads access tokens; it holds public keys only."""
    return _verifier(
        settings.JWT_PRIVATE_KEY,
        settings.JWT_PUBLIC_KEY,
        _key_folder(),
        settings.JWT_ISSUER,
        settings.JWT_AUDIENCE,
        keys_stamp(_key_folder()),
    )


def token_signer() -> TokenSigner:
    """Return what makes tokens; only processes where people sign in ask for it."""
    return _signer(
        settings.JWT_PRIVATE_KEY,
        _key_folder(),
        settings.JWT_ISSUER,
        settings.JWT_AUDIENCE,
        keys_stamp(_key_folder()),
    )


def _key_folder() -> Path:
    return Path(settings.DATA_DIR) / "keys"


@lru_cache(maxsize=4)
def _verifier(
    private: str, public: str, folder: Path, issuer: str, audience: str, _stamp: tuple[int, ...]
) -> TokenVerifier:
    pems = public_pems_in(public)
    if private:
        pems += (public_pem_of(private),)
    pems = pems or public_pems_in(kept_public_pem(folder))
    return TokenVerifier(pems, issuer=issuer, audience=audience)


@lru_cache(maxsize=4)
def _signer(
    private: str, folder: Path, issuer: str, audience: str, _stamp: tuple[int, ...]
) -> TokenSigner:
    return TokenSigner(private or kept_private_pem(folder), issuer=issuer, audience=audience)
