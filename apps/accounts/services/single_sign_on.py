"""Whom a provider's word signs in: somebody known, somebody with that address, somebody new.

The provider says a subject and an email address. The subject is what a person is known by from the
first time on; the address only finds the person once, and only when the provider has verified it.
"""

import hashlib
import re
from dataclasses import dataclass
from http import HTTPStatus

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.db import transaction

from apps.accounts.models import User
from apps.accounts.selectors import user_called
from apps.accounts.services import mfa, people
from apps.core import events
from apps.core.errors import PlatformError
from apps.core.events import Actor
from apps.core.models import Event

PROVIDER = "sso"
_SIGNS = re.compile(r"[^\w.+-]")
MOST_NAME = 140


class SignInRefused(PlatformError):
    """The provider knows who it is, and nobody may come in here under that."""

    code = "sign_in_refused"
    status = HTTPStatus.FORBIDDEN


@dataclass(frozen=True, slots=True)
class Visitor:
    """What the provider says of somebody.

    Attributes:
        subject: The provider's own name for the person; never changes.
        is_verified: Whether the provider has seen that the address is the person's.
    """

    issuer: str
    subject: str
    email: str = ""
    is_verified: bool = False
    name: str = ""
    first_name: str = ""
    last_name: str = ""


def uid_of(issuer: str, subject: str) -> str:
    """Return under what a person of a provider is kept: subjects of two issuers never meet."""
    return hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()


@transaction.atomic
def person_for(visitor: Visitor) -> User:
    """Return who signs in, connecting or making the person where that is allowed.

    Raises:
        SignInRefused: Nobody is, and why.
    """
    uid = uid_of(visitor.issuer, visitor.subject)
    known = SocialAccount.objects.select_related("user").filter(provider=PROVIDER, uid=uid).first()
    if known is not None:
        user: User = User.objects.get(pk=known.user_id)
        return _active(user)
    if not visitor.email or not visitor.is_verified:
        raise SignInRefused(
            "The provider does not say that it has verified your email address. Verify it there, "
            "then sign in again."
        )
    found = _addressed(visitor.email)
    if found is None and not settings.OIDC_CREATE:
        raise SignInRefused(
            "Nobody here has your email address. Ask a platform admin for a sign-in with it."
        )
    return _connected(_active(found), uid) if found else _connected(_made(visitor), uid)


def _addressed(email: str) -> User | None:
    """Find who has an address, letter by letter: a database may take a look-alike for the same."""
    found = user_called(email) if "@" in email else None  # without, it were somebody's name
    return found if found is not None and found.email.lower() == email.lower() else None


def _active(user: User) -> User:
    if not user.is_active:
        raise SignInRefused("Your sign-in is disabled. Ask a platform admin to enable it.")
    return user


def _connected(user: User, uid: str) -> User:
    """Keep that the provider's subject is this person."""
    people.lock(user)
    if not _is_vouched_for(user):
        _end_ways_in(user)
    SocialAccount.objects.create(user=user, provider=PROVIDER, uid=uid, extra_data={})
    by = Actor("user", str(user.pk), user.username)
    events.record("user.connected", actor=by, target=user, provider=settings.OIDC_NAME)
    return user


def _is_vouched_for(user: User) -> bool:
    """Whether somebody else than the person said that the address is the person's.

    Who registers alone, or changes the own address, may write anybody's; the link of an invitation
    was seen by whoever made it. Of an account whose making is purged nobody knows.
    """
    about = Event.objects.filter(target_kind=User._meta.label_lower, target_id=str(user.pk))
    made = about.filter(verb="user.created").first()
    if made is None or made.facts.get("how") in {"registered", "invited"}:
        return False
    own = about.filter(verb="user.email_changed", actor_kind="user", actor_id=str(user.pk))
    return not own.exists()


def _end_ways_in(user: User) -> None:
    """End what somebody may have set up under another's address: all ways in, and all tokens."""
    user.set_unusable_password()
    user.save(update_fields=["password"])
    people.end_tokens(user)
    others, _ = SocialAccount.objects.filter(user=user).delete()
    reason = "the address was unproven"
    events.record(
        "user.password_ended",
        actor=Actor.system(),
        target=user,
        reason=reason,
        connections_ended=others,
    )
    mfa.remove_all(user, actor=Actor.system(), reason=reason)
    people.publish(user)


def _made(visitor: Visitor) -> User:
    """Make a person without a password, without a team."""
    return people.create_user(
        username=free_name(visitor.name or visitor.email.partition("@")[0]),
        email=visitor.email,
        password=None,
        actor=Actor.system(),
        profile=people.Profile(
            first_name=visitor.first_name[:150], last_name=visitor.last_name[:150], how="sso"
        ),
    )


def free_name(wanted: str) -> str:
    """Return a user name that sounds like a wish, keeps our rule, and that nobody has."""
    plain = _SIGNS.sub("", wanted.partition("@")[0])[:MOST_NAME] or "person"
    taken = set(User.objects.filter(username__startswith=plain).values_list("username", flat=True))
    number, name = 1, plain
    while name in taken:
        number += 1
        name = f"{plain}{number}"
    return name
