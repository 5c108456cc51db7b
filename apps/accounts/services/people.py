"""Make and change users; each change reaches serving with the transaction that makes it.

Whoever changes what a user may do locks the user's row first: two changes at once then follow each
other, and the later snapshot entry holds both.
"""

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.accounts.models import RefreshToken, User
from apps.accounts.selectors import person_body
from apps.accounts.snapshot import PERSON, person_to_json
from apps.core import events, snapshot
from apps.core.errors import Conflict, FieldProblem, Invalid
from apps.core.events import Actor
from apps.core.models import SnapshotEntry


@dataclass(frozen=True, slots=True)
class Profile:
    """What else is known of a new user.

    Attributes:
        plan: What calls with a token may use up.
        uses_pages: Whether the admin's pages open, as far as the roles in teams go.
        how: How the sign-in came about, for the event: ``made``, ``registered``, ``invited``.
    """

    first_name: str = ""
    last_name: str = ""
    plan: str = "standard"
    uses_pages: bool = False
    how: str = "made"


PLAIN = Profile()


@transaction.atomic
def create_user(
    *,
    username: str,
    email: str,
    password: str | None,
    actor: Actor,
    is_admin: bool = False,
    profile: Profile = PLAIN,
) -> User:
    """Make a user who may sign in, or an admin of the platform."""
    user = User(
        username=username,
        email=email,
        is_staff=is_admin or profile.uses_pages,
        is_superuser=is_admin,
        first_name=profile.first_name,
        last_name=profile.last_name,
        plan_id=profile.plan,
    )
    _checked_password(user, password)
    user.set_password(password)
    try:
        user.full_clean(exclude=["password"])
        with transaction.atomic():
            user.save()
    except ValidationError as error:
        raise Invalid("The user cannot be made like this.").at(_problems(error)) from error
    except IntegrityError as error:
        raise Conflict("Somebody has this name or email address already.") from error
    events.record("user.created", actor=actor, target=user, is_admin=is_admin, how=profile.how)
    publish(user)
    return user


@transaction.atomic
def set_password(user: User, password: str, *, actor: Actor) -> None:
    """Give a user another password; every token of theirs ends."""
    _checked_password(user, password)
    lock(user)
    user.set_password(password)
    user.save(update_fields=["password"])
    end_tokens(user)
    events.record("user.password_changed", actor=actor, target=user)
    publish(user)


@transaction.atomic
def set_active(user: User, *, active: bool, actor: Actor, reason: str = "") -> None:
    """Let a user sign in, or no longer; keys and tokens of a disabled user are refused."""
    lock_admins()
    lock(user)
    before, user.is_active = user.is_active, active
    user.save(update_fields=["is_active"])
    if user.is_superuser:
        require_admin_left()
    end_tokens(user)
    verb = "user.enabled" if active else "user.disabled"
    changed = events.changes({"is_active": before}, {"is_active": active})
    events.record(verb, actor=actor, target=user, reason=reason, changes=changed)
    publish(user)


@transaction.atomic
def change_names(user: User, *, first_name: str, last_name: str, actor: Actor) -> None:
    """Change how a user is called."""
    before = {"first_name": user.first_name, "last_name": user.last_name}
    after = {"first_name": first_name, "last_name": last_name}
    user.first_name, user.last_name = first_name, last_name
    user.save(update_fields=["first_name", "last_name"])
    changed = events.changes(before, after)
    events.record("user.renamed", actor=actor, target=user, changes=changed)


@transaction.atomic
def change_email(user: User, *, email: str, actor: Actor) -> None:
    """Give a user another email address; signing in and mails go by it from now on."""
    lock(user)
    before = user.email
    user.email = email
    try:
        user.full_clean(exclude=["password"])
        with transaction.atomic():
            user.save(update_fields=["email"])
    except ValidationError as error:
        raise Invalid("The email address was not changed.").at(_problems(error)) from error
    except IntegrityError as error:
        raise Conflict("Somebody has this email address already.") from error
    if before != email:
        events.record(
            "user.email_changed",
            actor=actor,
            target=user,
            changes=events.changes({"email": before}, {"email": email}),
        )


@transaction.atomic
def standing_changed(
    user: User,
    *,
    actor: Actor,
    changed: list[str],
    created: bool,
    changes: dict[str, list[Any]] | None = None,
) -> None:
    """Finish what the admin's form has saved: event, end of tokens, snapshot entry.

    ``changes`` is what was before and is now, as ``events.changes`` tells it.
    """
    lock(user)
    if not created and {"is_superuser", "is_active"} & set(changed):
        lock_admins()
        require_admin_left()
    if not created:
        end_tokens(user)
    verb = "user.created" if created else "user.changed"
    told: dict[str, Any] = {"changes": changes} if changes else {}
    events.record(verb, actor=actor, target=user, changed=changed, **told)
    publish(user)


def lock(user: User) -> None:
    """Take the user's row until the transaction ends."""
    User.objects.select_for_update().get(pk=user.pk)


def lock_admins() -> None:
    """Take the rows of all who run the platform: of two who leave at once, one comes later."""
    admins = User.objects.select_for_update().filter(is_superuser=True, is_active=True)
    list(admins.order_by("pk").values_list("pk"))


def require_admin_left() -> None:
    """Refuse a change after which nobody runs the platform. Admins' rows must be locked.

    Raises:
        Conflict: It took the last platform admin away.
    """
    if not User.objects.filter(is_superuser=True, is_active=True).exists():
        raise Conflict(
            "Nobody would run the platform any more. Make another person a platform admin first."
        )


def end_tokens(user: User) -> None:
    """Make every token that the user holds an old one. The row must be locked."""
    user.token_version = User.objects.values_list("token_version", flat=True).get(pk=user.pk) + 1
    user.save(update_fields=["token_version"])
    living = RefreshToken.objects.filter(user=user, revoked_at__isnull=True)
    living.update(revoked_at=timezone.now())


def publish(user: User) -> None:
    """Write the user's snapshot entry: the last statement of a change.

    The row is read again: what the caller holds may be older than the lock on it.
    """
    fresh = User.objects.get(pk=user.pk)
    snapshot.put(PERSON, str(user.pk), person_to_json(person_body(fresh)))


@transaction.atomic
def publish_stale() -> int:
    """Write the entries that do not say what the users' rows say; return how many."""
    kept = dict(SnapshotEntry.objects.filter(kind=PERSON, deleted=False).values_list("key", "body"))
    stale = 0
    for user in User.objects.select_for_update().order_by("pk"):
        if kept.get(str(user.pk)) != person_to_json(person_body(user)):
            publish(user)
            stale += 1
    return stale


def _checked_password(user: User, password: str | None) -> None:
    if password is None:
        return
    try:
        validate_password(password, user)
    except ValidationError as error:
        problems = [FieldProblem("/password", one) for one in error.messages]
        raise Invalid("Choose another password.").at(problems) from error


def _problems(error: ValidationError) -> list[FieldProblem]:
    fields: dict[str, Any] = error.message_dict
    return [
        FieldProblem("" if name == "__all__" else f"/{name}", text)
        for name, texts in fields.items()
        for text in texts
    ]
