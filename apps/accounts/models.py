"""Users, teams, memberships, API keys and refresh tokens."""

from typing import ClassVar

from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as BaseUserManager
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from apps.accounts.keys import ID_LENGTH, KeyKind
from apps.accounts.snapshot import Role

_SLUG = RegexValidator(
    r"\A[a-z0-9][a-z0-9-]*\Z", "Use lower-case letters, digits and hyphens; begin with no hyphen."
)
_USERNAME = RegexValidator(r"\A[\w.+-]+\Z", "Use letters, digits, and the signs . + - _ only.")


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
    created = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.CharField(max_length=200, blank=True)

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

    All that descend from one sign-in are a family. Using one makes the next; a used one is refused.
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
