"""Users, teams, memberships, invitations, plans, API keys and refresh tokens."""

from typing import ClassVar

from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as BaseUserManager
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from apps.accounts.keys import ID_LENGTH, KeyKind
from apps.accounts.snapshot import CountedBy, Role

_SLUG = RegexValidator(
    r"\A[a-z0-9][a-z0-9-]*\Z", "Use lower-case letters, digits and hyphens; begin with no hyphen."
)
_USERNAME = RegexValidator(r"\A[\w.+-]+\Z", "Use letters, digits, and the signs . + - _ only.")


class Plan(models.Model):
    """What a key or a person may use up; None is no limit."""

    class Counting(models.TextChoices):
        KEY = CountedBy.KEY.value, "each key by itself"
        PERSON = CountedBy.PERSON.value, "all keys and tokens of a person together"

    name = models.CharField(primary_key=True, max_length=32, validators=[_SLUG])
    title = models.CharField(max_length=60)
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    # A prediction is one row; a call of 100 rows is 100 predictions.
    rows_per_minute = models.PositiveIntegerField(null=True, blank=True)
    rows_per_day = models.PositiveBigIntegerField(null=True, blank=True)
    rows_per_call = models.PositiveIntegerField(null=True, blank=True)
    counted_by = models.CharField(
        max_length=6, choices=Counting.choices, default=Counting.KEY, db_default="key"
    )
    # Whether a maintainer may give it to a key; a platform admin may give any.
    is_offered = models.BooleanField(default=True, db_default=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(counted_by__in=[one.value for one in CountedBy]),
                name="plan_counts_by_known",
            ),
        ]

    def __str__(self) -> str:
        return self.title


def _standard() -> str:
    return "standard"


class User(AbstractUser):
    """Somebody who may sign in, by name or by email address."""

    # A name never looks like an email address, so that nobody can sign in under another's.
    username = models.CharField(
        max_length=150,
        unique=True,
        validators=[_USERNAME],
        error_messages={"unique": "Somebody has this name already."},
    )
    email = models.EmailField("email address")
    # Tokens that carry another number are refused.
    token_version = models.PositiveIntegerField(default=1, editable=False)
    # What calls with a token may use up, and the plan of the keys that the person makes.
    plan: models.ForeignKey[Plan, Plan] = models.ForeignKey(
        Plan,
        on_delete=models.PROTECT,
        related_name="people",
        default=_standard,
        db_default=models.Value("standard"),
    )

    objects: ClassVar[BaseUserManager["User"]] = BaseUserManager()  # type: ignore[assignment]  # Self

    class Meta:
        verbose_name = "person"
        verbose_name_plural = "people"
        constraints = [
            models.UniqueConstraint(
                Lower("email"),
                name="one_user_per_email",
                condition=~Q(email=""),
                violation_error_message="Somebody has this email address already.",
            ),
            models.CheckConstraint(
                condition=~Q(username__contains="@"), name="username_is_no_email"
            ),
        ]


class Team(models.Model):
    """People who share models."""

    slug = models.CharField(max_length=64, unique=True, validators=[_SLUG])
    name = models.CharField(max_length=120)
    created = models.DateTimeField(auto_now_add=True)
    members = models.ManyToManyField(User, through="Membership", related_name="teams")

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A user's role in a team."""

    class RoleChoice(models.TextChoices):
        VIEWER = Role.VIEWER.value, "Viewer"
        CONTRIBUTOR = Role.CONTRIBUTOR.value, "Contributor"
        MAINTAINER = Role.MAINTAINER.value, "Maintainer"

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=12, choices=RoleChoice.choices)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["team", "user"], name="one_membership_per_team"),
            models.CheckConstraint(
                condition=Q(role__in=[role.value for role in Role]), name="role_is_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.team} ({self.role})"


def _production() -> list[str]:
    return ["production"]


class ApiKey(models.Model):
    """An API key; of its secret only the digest is kept."""

    class Kind(models.TextChoices):
        LIVE = KeyKind.LIVE.value, "Live"
        TEST = KeyKind.TEST.value, "Test"

    id = models.CharField(primary_key=True, max_length=ID_LENGTH)
    sha256 = models.CharField(max_length=64, editable=False)
    last4 = models.CharField(max_length=4)
    kind = models.CharField(max_length=4, choices=Kind.choices, default=Kind.LIVE)
    name = models.CharField(max_length=120)
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="keys")
    owner = models.ForeignKey(User, on_delete=models.PROTECT, related_name="keys")
    created_by = models.CharField(max_length=200)
    scopes = models.JSONField(default=list)
    # Names of the models it may use; empty for all of the team.
    model_names = models.JSONField(default=list, blank=True)
    environments = models.JSONField(default=_production)
    plan: models.ForeignKey[Plan, Plan] = models.ForeignKey(
        Plan,
        on_delete=models.PROTECT,
        related_name="keys",
        default=_standard,
        db_default=models.Value("standard"),
    )
    # Networks it may be used from, as 192.0.2.0/24; empty for all.
    networks = models.JSONField(
        default=list, blank=True, db_default=models.Value([], models.JSONField())
    )
    # The key that this one takes over from; both are good until the older one expires.
    replaces = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="replaced_by"
    )
    created = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.CharField(max_length=200, blank=True)
    # From the shipped record, exact to the minute; from where it is personal data of its holder.
    last_used_at = models.DateTimeField(null=True, blank=True)
    last_used_address = models.CharField(max_length=64, blank=True, default="", db_default="")
    last_used_agent = models.CharField(max_length=200, blank=True, default="", db_default="")
    # When its holder was told that nobody uses it.
    warned_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=[kind.value for kind in KeyKind]), name="key_kind_is_known"
            ),
        ]
        indexes = [
            # Lists of a team's keys and of one's own, newest first.
            models.Index(fields=["team", "-created"], name="key_of_team"),
            models.Index(fields=["owner", "-created"], name="key_of_owner"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"

    @property
    def prefix(self) -> str:
        """What of the key may be shown."""
        return f"mlp_{self.kind}_{self.id}"


class RefreshToken(models.Model):
    """One refresh token that was given out, and the access token that went with it.

    All that descend from one sign-in are a family. Using one makes the next; using it again ends
    the whole family, since two hold it now and one of them stole it.
    """

    id = models.CharField(primary_key=True, max_length=36)
    family = models.CharField(max_length=36)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="refresh_tokens")
    expires = models.DateTimeField()
    access_id = models.CharField(max_length=36)
    access_expires = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            # Ending a sign-in ends all of its family.
            models.Index(fields=["family"], name="refresh_token_family"),
            # What the hourly tick drops.
            models.Index(fields=["expires"], name="refresh_token_expires"),
        ]

    def __str__(self) -> str:
        return f"refresh token {self.id}"


class KeyAddress(models.Model):
    """An address that a key was used from, as the shipped record tells."""

    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="addresses")
    address = models.CharField(max_length=64)
    first = models.DateTimeField()
    last = models.DateTimeField()
    calls = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "key addresses"
        constraints = [
            models.UniqueConstraint(fields=["key", "address"], name="one_row_per_key_address")
        ]
        indexes = [
            # The newest of a key, on its page; the oldest go first.
            models.Index(fields=["key", "-last"], name="key_address_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.key_id} from {self.address}"


class Invitation(models.Model):
    """Somebody's leave to register; of its text only the digest is kept."""

    sha256 = models.CharField(max_length=64, unique=True, editable=False)
    email = models.EmailField()
    # The team that the new person joins, and as what; without one nothing but an account is made.
    team = models.ForeignKey(
        Team, on_delete=models.CASCADE, null=True, blank=True, related_name="invitations"
    )
    role = models.CharField(max_length=12, choices=Membership.RoleChoice.choices, blank=True)
    invited_by = models.CharField(max_length=200)
    created = models.DateTimeField(auto_now_add=True)
    expires = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    accepted_by = models.ForeignKey(
        User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(role__in=["", *(role.value for role in Role)]),
                name="invitation_role_is_known",
            ),
        ]
        indexes = [
            # A team's invitations, newest first.
            models.Index(fields=["team", "-created"], name="invitation_of_team"),
        ]

    def __str__(self) -> str:
        return f"invitation of {self.email}"


class SignInGuard(models.Model):
    """How often somebody failed to sign in lately: by name, and by address.

    A row of its own, not a cache: every process must count alike, also without Redis.
    """

    # A digest of `name:<name>` or `address:<address>`, so that no name that somebody mistyped,
    # which may be a password, is kept.
    subject = models.CharField(primary_key=True, max_length=64)
    failures = models.PositiveIntegerField(default=0)
    since = models.DateTimeField()
    locked_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            # What the hourly tick drops.
            models.Index(fields=["since"], name="sign_in_guard_since"),
        ]

    def __str__(self) -> str:
        return f"{self.failures} failures since {self.since:%Y-%m-%d %H:%M}"
