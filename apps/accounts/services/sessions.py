"""Sign in, go on, sign out: pairs of tokens, each refresh token good for one use.

All tokens that descend from one sign-in are a family, which ends as a whole when the user signs
out: its refresh tokens are refused here, its access tokens are named to serving until they expire.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.utils import timezone

from apps.accounts.models import RefreshToken, User
from apps.accounts.selectors import actor_of_user, token_signer, token_verifier, user_called
from apps.accounts.snapshot import TOKEN
from apps.accounts.tokens import LEEWAY_SECONDS, Claims, Token, TokenKind
from apps.core import events, ids, snapshot
from apps.core.errors import InvalidToken, WrongPassword
from apps.core.models import SnapshotEntry

_ENDED = "The refresh token was used or revoked already. Sign in again."


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a client holds while it is signed in."""

    access: str
    refresh: str


def sign_in(name: str, password: str) -> TokenPair:
    """Open a sign-in with user name (or email address) and password.

    Raises:
        WrongPassword: They do not belong together, or the user is disabled; both look the same.
    """
    user = user_called(name)
    if user is None:
        make_password(password)  # an unknown name must take as long as a wrong password
        raise WrongPassword("The name and the password do not belong together.")
    if not user.check_password(password) or not user.is_active:
        raise WrongPassword("The name and the password do not belong together.")
    return _open(user)


@transaction.atomic
def refresh(text: str) -> TokenPair:
    """Exchange a refresh token for a new pair; it cannot be used again.

    Raises:
        InvalidToken: It is bad, expired, used, revoked, or older than a change of password, role
            or standing.
    """
    now = timezone.now()
    claims = token_verifier().read(text, kind=TokenKind.REFRESH, now=now.timestamp())
    user = _locked_holder(claims)
    if not user.is_active or user.token_version != claims.token_version:
        raise InvalidToken("The token is no longer valid. Sign in again.")
    live = RefreshToken.objects.filter(pk=claims.id, used_at__isnull=True, revoked_at__isnull=True)
    if not live.update(used_at=now):
        raise InvalidToken(_ENDED)
    pair = _pair(user, RefreshToken.objects.get(pk=claims.id).family, now)
    events.record("user.refreshed", actor=actor_of_user(user), target=user)
    return pair


@transaction.atomic
def sign_out(text: str) -> None:
    """End the sign-in that a refresh token belongs to; doing it twice does no harm.

    Raises:
        InvalidToken: It is none of ours, or has expired.
    """
    now = timezone.now()
    claims = token_verifier().read(text, kind=TokenKind.REFRESH, now=now.timestamp())
    user = _locked_holder(claims)
    one = RefreshToken.objects.filter(pk=claims.id, user=user).first()
    if one is None:
        raise InvalidToken(_ENDED)
    fresh = list(RefreshToken.objects.filter(family=one.family, revoked_at__isnull=True))
    if not fresh:
        return
    RefreshToken.objects.filter(pk__in=[token.pk for token in fresh]).update(revoked_at=now)
    events.record("user.signed_out", actor=actor_of_user(user), target=user)
    for token in fresh:
        if token.access_expires + timedelta(seconds=LEEWAY_SECONDS) > now:
            expires = int(token.access_expires.timestamp())
            snapshot.put(TOKEN, token.access_id, {"expires": expires})


def access_token(user: User, *, seconds: int | None = None) -> str:
    """Make a lone access token for a program that the operator starts; it cannot be refreshed."""
    return _sign(user, TokenKind.ACCESS, timezone.now(), seconds).text


def drop_expired() -> int:
    """Forget tokens that no verifier would take any more; return how many."""
    limit = timezone.now() - timedelta(seconds=2 * LEEWAY_SECONDS)
    dropped, _ = RefreshToken.objects.filter(expires__lt=limit).delete()
    for entry in SnapshotEntry.objects.filter(kind=TOKEN, deleted=False).iterator():
        if (entry.body or {}).get("expires", 0) < limit.timestamp():
            with transaction.atomic():
                snapshot.drop(TOKEN, entry.key)
            dropped += 1
    return dropped


@transaction.atomic
def _open(user: User) -> TokenPair:
    now = timezone.now()
    user.last_login = now
    user.save(update_fields=["last_login"])
    pair = _pair(user, ids.new_id(), now)
    events.record("user.signed_in", actor=actor_of_user(user), target=user)
    return pair


def _locked_holder(claims: Claims) -> User:
    """Lock whose token it is; so a refresh and a sign-out of one family follow each other."""
    user = User.objects.select_for_update().filter(pk=claims.user_id).first()
    if user is None:
        raise InvalidToken(_ENDED)
    return user


def _pair(user: User, family: str, now: datetime) -> TokenPair:
    access = _sign(user, TokenKind.ACCESS, now)
    again = _sign(user, TokenKind.REFRESH, now)
    RefreshToken.objects.create(
        id=again.claims.id,
        family=family,
        user=user,
        expires=_end(again.claims),
        access_id=access.claims.id,
        access_expires=_end(access.claims),
    )
    return TokenPair(access.text, again.text)


def _sign(user: User, kind: TokenKind, now: datetime, seconds: int | None = None) -> Token:
    seconds = seconds or (
        settings.JWT_ACCESS_SECONDS if kind is TokenKind.ACCESS else settings.JWT_REFRESH_SECONDS
    )
    return token_signer().sign(
        kind,
        user_id=user.pk,
        token_version=user.token_version,
        seconds=seconds,
        now=now.timestamp(),
    )


def _end(claims: Claims) -> datetime:
    return datetime.fromtimestamp(claims.expires, UTC)
