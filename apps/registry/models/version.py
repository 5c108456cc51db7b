"""Models, their versions, and the files and names of those."""

import re

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from apps.registry.snapshot import FullSpool, RecordMode
from apps.registry.states import JUDGED_GOOD, VersionState

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
NAME_LENGTH = 100
# Words that stand in the place of a model's name in some URL.
RESERVED_NAMES = frozenset({"upload", "batch", "index"})


class RegisteredModel(models.Model):
    """A name in URLs with an owner; what it answers with is a matter of its endpoints."""

    name = models.CharField(
        max_length=NAME_LENGTH,
        unique=True,
        validators=[RegexValidator(rf"\A{NAME.pattern}\Z", "Use a-z, 0-9, dot, dash, underscore.")],
    )
    team = models.ForeignKey("accounts.Team", on_delete=models.PROTECT, related_name="models")
    description = models.TextField(blank=True, help_text="The model card, in Markdown.")
    tags = models.JSONField(default=list, blank=True)

    # The model's own rules for caching and recording, the same in every environment.
    cache_seconds = models.PositiveIntegerField(
        default=0, help_text="Seconds an equal question gets the stored answer; 0 is off."
    )
    record = models.CharField(
        max_length=10,
        choices=[(one.value, one.value) for one in RecordMode],
        default=RecordMode.FULL.value,
        help_text="How much of inputs and outputs the prediction log keeps.",
    )
    sample_share = models.FloatField(
        default=1.0, help_text="With `sample`: the part of the calls kept in full, 0 to 1."
    )
    full_spool = models.CharField(
        max_length=12,
        choices=[(one.value, one.value) for one in FullSpool],
        default=FullSpool.REQUIRED.value,
        help_text="What happens when answers can no longer be recorded.",
    )
    redact = models.JSONField(
        default=dict, blank=True, help_text='Field to "drop" or "hash", before the record.'
    )
    deadline_seconds = models.FloatField(
        default=10.0, help_text="Seconds a caller waits at the most."
    )

    created = models.DateTimeField(auto_now_add=True)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "model"
        permissions = [
            ("upload_code_bearing_model", "Can upload a model file that carries code (pickle)"),
            ("download_artifact", "Can download the files of a version"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(record__in=[one.value for one in RecordMode]),
                name="model_record_is_known",
            ),
            models.CheckConstraint(
                condition=Q(full_spool__in=[one.value for one in FullSpool]),
                name="model_full_spool_is_known",
            ),
            models.CheckConstraint(
                condition=Q(sample_share__gte=0, sample_share__lte=1),
                name="model_sample_share_is_a_share",
            ),
            models.CheckConstraint(
                condition=Q(deadline_seconds__gt=0), name="model_deadline_is_positive"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ModelVersion(models.Model):
    """One immutable artifact of a model, and the verdict on it."""

    model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(
        max_length=12,
        choices=[(one.value, one.value) for one in VersionState],
        default=VersionState.UPLOADED.value,
    )
    description = models.TextField(blank=True)

    # What was uploaded. The file name is a stranger's text: shown, never a path.
    filename = models.CharField(max_length=255, blank=True)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64, db_index=True)
    incoming_key = models.CharField(max_length=100, blank=True)
    declared_format = models.CharField(max_length=20, blank=True)
    declared_signature = models.JSONField(null=True, blank=True)
    example = models.JSONField(null=True, blank=True)
    may_carry_code = models.BooleanField(default=False)

    # What validation found.
    format = models.CharField(max_length=20, blank=True)
    container = models.CharField(max_length=20, blank=True)
    runtime = models.CharField(max_length=20, blank=True)
    served_key = models.CharField(max_length=300, blank=True)
    served_sha256 = models.CharField(max_length=64, blank=True)
    served_size = models.BigIntegerField(default=0)
    resident_bytes = models.BigIntegerField(default=0)
    signature = models.JSONField(null=True, blank=True)
    report = models.JSONField(default=dict, blank=True)
    decided = models.DateTimeField(null=True, blank=True)

    # What people say about it.
    metrics = models.JSONField(default=dict, blank=True)
    params = models.JSONField(default=dict, blank=True)
    tags = models.JSONField(default=dict, blank=True)
    lineage = models.JSONField(default=dict, blank=True)

    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="children"
    )
    uploaded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="uploads",
    )
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "version"
        constraints = [
            models.UniqueConstraint(fields=["model", "number"], name="version_number_of_a_model"),
            models.CheckConstraint(
                condition=Q(state__in=[one.value for one in VersionState]),
                name="version_state_is_known",
            ),
            models.CheckConstraint(condition=Q(number__gte=1), name="version_numbers_start_at_1"),
            # Whatever the code forgets: nothing without a checked served file is ever ready.
            models.CheckConstraint(
                condition=~Q(state__in=["ready", "deprecated"])
                | (Q(served_key__gt="") & Q(served_sha256__gt="") & Q(signature__isnull=False)),
                name="ready_version_has_served_file",
            ),
        ]
        indexes = [
            # The sweeper and the home page look for versions whose verdict is still to come.
            models.Index(
                fields=["created"],
                name="version_under_way",
                condition=Q(state__in=["uploaded", "validating"]),
            )
        ]

    def __str__(self) -> str:
        return f"{self.model.name} {self.number}"

    @property
    def was_judged_good(self) -> bool:
        """Whether validation ended well, whatever came later."""
        return bool(self.served_sha256) and VersionState(self.state) in JUDGED_GOOD


class Artifact(models.Model):
    """One stored file of a version."""

    class Role(models.TextChoices):
        ORIGINAL = "original"
        SERVED = "served"
        METADATA = "metadata"

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="artifacts")
    role = models.CharField(max_length=10, choices=Role.choices)
    key = models.CharField(max_length=300)
    sha256 = models.CharField(max_length=64)
    size = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "role"], name="one_artifact_per_role"),
            models.CheckConstraint(
                condition=Q(role__in=["original", "served", "metadata"]),
                name="artifact_role_is_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} of {self.version_id}"


class Alias(models.Model):
    """A movable name for a version."""

    model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="aliases")
    name = models.CharField(max_length=NAME_LENGTH)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="aliases")

    class Meta:
        verbose_name_plural = "aliases"
        constraints = [
            models.UniqueConstraint(fields=["model", "name"], name="alias_name_of_a_model")
        ]

    def __str__(self) -> str:
        return self.name
