"""Sign in, go on, sign out: pairs of tokens, each refresh token good for one use.

All tokens that descend from one sign-in are a family, which ends as a whole when the user signs
out, or when a refresh token is used twice: its refresh tokens are refused here, its access tokens
are named to serving until they expire.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.accounts.models import RefreshToken, User
from apps.accounts.selectors import actor_of_user, token_signer, token_verifier
from apps.accounts.services import guards, mfa
from apps.accounts.snapshot import TOKEN
from apps.accounts.tokens import LEEWAY_SECONDS, Claims, Token, TokenKind
from apps.core import events, ids, snapshot
from apps.core.errors import InvalidToken
from apps.core.events import Actor
from apps.core.models import SnapshotEntry

_ENDED = "The refresh token was used or revoked already. Sign in again."


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a client holds while it is signed in."""

    access: str
    refresh: str


def sign_in(name: str, password: str, code: str | None = None) -> TokenPair:
    """Open a sign-in with user name (or email address), password, and code of the second factor.

    Raises:
        WrongPassword: They do not belong together, or the user is disabled; both look the same.
        LockedOut: The name or the address failed too often.
        PlatformError: A second factor is wanted (``mfa.require_second_factor``).
    """
    user = guards.person_with(name, password)
    has_shown = mfa.require_second_factor(user, code)
    guards.succeeded(user)
    return _open(user, second_factor=has_shown)


def refresh(text: str) -> TokenPair:
    """Exchange a refresh token for a new pair; it cannot be used again.

    Whoever uses it again ends all that descends from its sign-in: two hold it, and one of them
    stole it. There is no grace for a program that sends it twice.

    Raises:
        InvalidToken: It is bad, expired, used, revoked, or older than a change of password, role
            or standing.
        NotAllowed: A second factor is demanded meanwhile, and the person has none.
    """
    now = timezone.now()
    claims = token_verifier().read(text, kind=TokenKind.REFRESH, now=now.timestamp())
    with transaction.atomic():
        pair = _exchanged(claims, now)
    if pair is None:  # raised out here, or it would undo the end of the family
        raise InvalidToken(_ENDED)
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
    ended = _living(one.family)
    if ended:
        events.record("user.signed_out", actor=actor_of_user(user), target=user, method="token")
        _end(ended, now)


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
def _open(user: User, *, second_factor: bool) -> TokenPair:
    now = timezone.now()
    user.last_login = now
    user.save(update_fields=["last_login"])
    pair = _pair(user, ids.new_id(), now)
    events.record(
        "user.signed_in",
        actor=actor_of_user(user),
        target=user,
        method="token",
        second_factor=second_factor,
    )
    return pair


def _exchanged(claims: Claims, now: datetime) -> TokenPair | None:
    """Return a new pair, or None where the token was used up already; then nothing of it lives."""
    user = _locked_holder(claims)
    if not user.is_active or user.token_version != claims.token_version:
        raise InvalidToken("The token is no longer valid. Sign in again.")
    mfa.require_enrolled(user)
    mine = RefreshToken.objects.filter(pk=claims.id, user=user)
    if not mine.filter(used_at__isnull=True, revoked_at__isnull=True).update(used_at=now):
        _end_reused(user, mine.first(), now)
        return None
    pair = _pair(user, mine.get().family, now)
    events.record("user.refreshed", actor=actor_of_user(user), target=user)
    return pair


def _end_reused(user: User, token: RefreshToken | None, now: datetime) -> None:
    """End what descends from a sign-in whose token came twice; a dead family is no news."""
    living = _living(token.family) if token is not None and token.used_at is not None else []
    if living:
        events.record("user.token_reused", actor=Actor.system(), target=user, ended=len(living))
        _end(living, now)


def _living(family: str) -> list[RefreshToken]:
    return list(RefreshToken.objects.filter(family=family, revoked_at__isnull=True))


def _end(tokens: list[RefreshToken], now: datetime) -> None:
    """Revoke refresh tokens; name to serving the access tokens that went with them."""
    RefreshToken.objects.filter(pk__in=[one.pk for one in tokens]).update(revoked_at=now)
    for one in tokens:
        if one.access_expires + timedelta(seconds=LEEWAY_SECONDS) > now:
            snapshot.put(TOKEN, one.access_id, {"expires": int(one.access_expires.timestamp())})


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
        expires=_expiry(again.claims),
        access_id=access.claims.id,
        access_expires=_expiry(access.claims),
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


def _expiry(claims: Claims) -> datetime:
    return datetime.fromtimestamp(claims.expires, UTC)
