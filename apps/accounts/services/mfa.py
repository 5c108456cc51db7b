"""The second factor: who has one, using a code up, taking all of somebody's away.

The rows are allauth's; its pages enrol and remove. A code is judged here alone, for the pages and
for the API: a code is good once, which the row remembers and no cache does, and wrong ones count
towards the same lock as wrong passwords. Secrets of the rows are encrypted with keys made from the
secret key, so that a copy of the database is not enough to make codes.
"""

import base64
import hmac
from datetime import datetime
from functools import lru_cache
from http import HTTPStatus

from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.selectors import actor_of_user
from apps.accounts.services import browsers, guards
from apps.core import events
from apps.core.errors import NotAllowed, PlatformError
from apps.core.events import Actor

OFF, OPTIONAL, REQUIRED = "off", "optional", "required"
PERIOD_SECONDS = 30
# Clocks of phones differ: the code before and the one after the present one are taken, too.
TOLERANCE = 1
# Steps whose codes were taken before, so that a code read over a shoulder opens nothing again.
_LAST_STEP = "last_step"
_PURPOSE = b"accounts.second-factor"
Type = Authenticator.Type


class SecondFactorWanted(PlatformError):
    """The password is right, and a code of the second factor is needed besides."""

    code = "mfa_required"
    status = HTTPStatus.UNAUTHORIZED


class PasswordNotEnough(PlatformError):
    """The person cannot prove a second factor here, and a password alone is not taken."""

    code = "mfa_unavailable"
    status = HTTPStatus.UNAUTHORIZED


def has_second_factor(user: User) -> bool:
    """Whether somebody has an app or a passkey; recovery codes alone are none."""
    return _factors(user).exists()


def is_wanted_of(user: User) -> bool:
    """Whether somebody must enrol before anything else opens."""
    return settings.MFA == REQUIRED and user.is_staff and not has_second_factor(user)


def require_enrolled(user: User) -> None:
    """Refuse a browser's session whose person must set a second factor up first.

    Raises:
        NotAllowed: And where that is done.
    """
    if is_wanted_of(user):
        raise NotAllowed("Set up a second factor first, at /account/2fa/.")


def require_second_factor(user: User, code: str | None) -> bool:
    """Ask whoever has shown a password for the second factor; return whether one was shown.

    Raises:
        SecondFactorWanted: There is one, and no code came.
        PasswordNotEnough: A passkey cannot be shown here, or one must be set up first.
        WrongPassword: The code is wrong or was used; it counts like a wrong password.
    """
    if settings.MFA == OFF:
        return False
    kinds = set(_factors(user).values_list("type", flat=True))
    if not kinds and is_wanted_of(user):
        raise PasswordNotEnough(
            "A second factor is required here. Sign in to the admin and set one up, then send its "
            "six digits as `code`; programs use an API key."
        )
    if not kinds:
        return False
    if code:
        use_code(user, code)
        return True
    if Type.TOTP in kinds:
        raise SecondFactorWanted("Send the six digits of your app, or a recovery code, as `code`.")
    raise PasswordNotEnough(
        "Your second factor is a passkey, which only the admin's pages can ask for. Use an API "
        "key, send a recovery code as `code`, or set up an app in the admin."
    )


def use_code(user: User, code: str, *, method: str = "code") -> Authenticator:
    """Use a code up and return what it belongs to: the app, or the recovery codes.

    Raises:
        LockedOut: Too many codes or passwords of this person were wrong.
        WrongPassword: It is no code of this person's now, or was used already.
    """
    guards.require_unlocked(user.username, user)
    used = _spend(user, "".join(code.split()).replace("-", ""))
    if used is None:
        raise guards.failed(user.username, user, method=method)
    return used


@transaction.atomic
def remove_all(user: User, *, actor: Actor, reason: str) -> int:
    """Take every factor away, for somebody who lost them; return how many there were.

    Whoever found them may be signed in with them: all sessions and tokens of the person end.
    """
    kinds = [str(one) for one in _rows(user).values_list("type", flat=True)]
    if not kinds:
        return 0
    _rows(user).delete()
    events.record(
        "user.second_factor_removed",
        actor=actor,
        target=user,
        reason=reason,
        kinds=sorted(set(kinds)),
    )
    browsers.end_others(user, this=None, actor=actor)
    return len(kinds)


def note_added(factor: Authenticator) -> None:
    """Write that somebody set a factor up, or made recovery codes."""
    user = _holder(factor)
    codes = factor.type == Type.RECOVERY_CODES
    verb = "user.recovery_codes_made" if codes else "user.second_factor_added"
    events.record(verb, actor=actor_of_user(user), target=user, kinds=[str(factor.type)])


def note_removed(factor: Authenticator) -> None:
    """Write that somebody took a factor of the own away."""
    user = _holder(factor)
    events.record(
        "user.second_factor_removed",
        actor=actor_of_user(user),
        target=user,
        kinds=[str(factor.type)],
    )


def seal(text: str) -> str:
    """Encrypt a secret for its row."""
    return _locks().encrypt(text.encode()).decode()


def unseal(sealed: str) -> str:
    """Decrypt a secret of a row; the former secret key opens it as long as it is kept.

    Raises:
        PasswordNotEnough: Neither key opens it.
    """
    try:
        return _locks().decrypt(sealed.encode()).decode()
    except InvalidToken as error:
        raise PasswordNotEnough(
            "The secret of this second factor was encrypted with a key that is not here any more. "
            "Use a passkey, or ask a platform admin to remove your second factors."
        ) from error


@transaction.atomic
def reseal_all() -> int:
    """Encrypt all secrets with the present key, so that the former one can go; return how many."""
    renewed = 0
    rows = Authenticator.objects.select_for_update().filter(
        type__in=[Type.TOTP, Type.RECOVERY_CODES]
    )
    for row in rows.order_by("pk"):
        name = "secret" if row.type == Type.TOTP else "seed"
        row.data[name] = _locks().rotate(row.data[name].encode()).decode()
        row.save(update_fields=["data"])
        renewed += 1
    return renewed


def steps_at(now: datetime) -> range:
    """Return the numbers of the steps whose codes are taken at a time."""
    present = int(now.timestamp()) // PERIOD_SECONDS
    return range(present - TOLERANCE, present + TOLERANCE + 1)


@transaction.atomic
def _spend(user: User, code: str) -> Authenticator | None:
    """Find the row whose code it is, and remember that it was used, in one transaction."""
    app = _rows(user).select_for_update().filter(type=Type.TOTP).first()
    if app is not None and _spend_step(app, code):
        return app
    codes = _rows(user).select_for_update().filter(type=Type.RECOVERY_CODES).first()
    if codes is not None and codes.wrap().validate_code(code):
        events.record("user.used_recovery_code", actor=actor_of_user(user), target=user)
        return codes
    return None


def _spend_step(app: Authenticator, code: str) -> bool:
    secret = unseal(app.data["secret"])
    for step in steps_at(timezone.now()):
        # Later than the last one only, so that neither it nor one before it is taken again.
        good = format_hotp_value(hotp_value(secret, step))
        if hmac.compare_digest(good.encode(), code.encode()) and step > app.data.get(_LAST_STEP, 0):
            app.data[_LAST_STEP] = step
            app.save(update_fields=["data"])
            return True
    return False


def _rows(user: User) -> QuerySet[Authenticator]:
    found: QuerySet[Authenticator] = Authenticator.objects.filter(user_id=user.pk)
    return found


def _factors(user: User) -> QuerySet[Authenticator]:
    return _rows(user).filter(type__in=[Type.TOTP, Type.WEBAUTHN])


def _holder(factor: Authenticator) -> User:
    return User.objects.get(pk=factor.user_id)


def _locks() -> MultiFernet:
    return _locks_of((settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


@lru_cache(maxsize=4)
def _locks_of(keys: tuple[str, ...]) -> MultiFernet:
    """Make what encrypts with the first key, and decrypts with any."""
    return MultiFernet([Fernet(base64.urlsafe_b64encode(_derived(key))) for key in keys])


def _derived(key: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(key.encode())
