"""What the doors of the registry take and give."""

from typing import Any
from urllib.parse import quote

from django.http import HttpRequest
from rest_framework import serializers

from apps.accounts.api.serializers import StrictSerializer
from apps.accounts.models import Team
from apps.core.models import Event
from apps.registry.api.reach import absolute
from apps.registry.models import Alias, ModelVersion, RegisteredModel, Release
from apps.registry.models.version import NAME_LENGTH
from apps.registry.snapshot import ArmRole, FullSpool, RecordMode, Redaction
from apps.registry.states import ReleaseState, VersionState

ROOT = "/api/v1"
MAX_NUMBER = 2**31 - 1


def model_path(name: str) -> str:
    """The path of a model; predictions are asked for elsewhere."""
    return f"{ROOT}/models/{quote(name)}"


def version_path(name: str, number: int) -> str:
    """The path of a version."""
    return f"{model_path(name)}/versions/{number}"


class _WithUrls(serializers.ModelSerializer[Any]):
    """Gives whole addresses when it knows the request."""

    def _absolute(self, path: str) -> str:
        request = self.context.get("request")
        plain = getattr(request, "_request", request)
        return absolute(plain if isinstance(plain, HttpRequest) else None, path)


class ModelUrlsSerializer(serializers.Serializer[Any]):
    self = serializers.URLField()
    versions = serializers.URLField()
    predict = serializers.URLField()


class ModelSerializer(_WithUrls):
    team = serializers.SlugRelatedField[Team](slug_field="slug", read_only=True)
    tags = serializers.ListField(child=serializers.CharField())
    record = serializers.ChoiceField(choices=[one.value for one in RecordMode])
    full_spool = serializers.ChoiceField(choices=[one.value for one in FullSpool])
    redact = serializers.DictField(
        child=serializers.ChoiceField(choices=[one.value for one in Redaction])
    )
    urls = serializers.SerializerMethodField()

    class Meta:
        model = RegisteredModel
        fields = (
            "name",
            "team",
            "description",
            "tags",
            "cache_seconds",
            "record",
            "sample_share",
            "full_spool",
            "redact",
            "deadline_seconds",
            "created",
            "urls",
        )

    def get_urls(self, model: RegisteredModel) -> dict[str, str]:
        return {
            "self": self._absolute(model_path(model.name)),
            "versions": self._absolute(f"{model_path(model.name)}/versions"),
            "predict": self._absolute(f"{ROOT}/predict/{quote(model.name)}"),
        }


class ModelChangeSerializer(StrictSerializer):
    description = serializers.CharField(required=False, allow_blank=True, max_length=65536)
    tags = serializers.ListField(
        required=False, child=serializers.CharField(max_length=100), max_length=50
    )
    cache_seconds = serializers.IntegerField(
        required=False, help_text="Seconds an equal question gets the stored answer; 0 is off."
    )
    record = serializers.ChoiceField(
        required=False,
        choices=[one.value for one in RecordMode],
        help_text="How much of inputs and outputs the prediction log keeps.",
    )
    sample_share = serializers.FloatField(required=False)
    full_spool = serializers.ChoiceField(required=False, choices=[one.value for one in FullSpool])
    redact = serializers.DictField(
        required=False,
        child=serializers.ChoiceField(choices=[one.value for one in Redaction]),
        help_text="Input, column or output, or `unit`, or `id` (the caller's own), to what is done "
        "to it before the record.",
    )
    deadline_seconds = serializers.FloatField(required=False)


class ModelWishSerializer(StrictSerializer):
    name = serializers.CharField(max_length=NAME_LENGTH)
    team = serializers.CharField(
        required=False, max_length=64, help_text="Slug; may be left out with one team only."
    )
    description = serializers.CharField(required=False, allow_blank=True, max_length=65536)
    tags = serializers.ListField(
        required=False, child=serializers.CharField(max_length=100), max_length=50
    )


class VersionSerializer(_WithUrls):
    model = serializers.CharField(source="model.name")
    state = serializers.ChoiceField(choices=[one.value for one in VersionState])
    parent = serializers.SlugRelatedField[ModelVersion](  # type: ignore[assignment]  # DRF takes it off the class
        slug_field="number", read_only=True
    )
    uploaded_by = serializers.CharField(
        source="uploaded_by.username", default=None, allow_null=True
    )
    aliases = serializers.SerializerMethodField()
    signature = serializers.JSONField(allow_null=True)
    report = serializers.JSONField()
    metrics = serializers.JSONField()
    params = serializers.JSONField()
    tags = serializers.JSONField()
    lineage = serializers.JSONField()
    example = serializers.JSONField(allow_null=True)
    urls = serializers.SerializerMethodField()

    class Meta:
        model = ModelVersion
        fields = (
            "model",
            "number",
            "state",
            "description",
            "format",
            "container",
            "runtime",
            "filename",
            "size",
            "sha256",
            "signature",
            "report",
            "metrics",
            "params",
            "tags",
            "lineage",
            "example",
            "parent",
            "aliases",
            "uploaded_by",
            "created",
            "decided",
            "urls",
        )

    def get_aliases(self, version: ModelVersion) -> list[str]:
        return sorted(alias.name for alias in version.aliases.all())

    def get_urls(self, version: ModelVersion) -> dict[str, str]:
        name = version.model.name
        here = self._absolute(version_path(name, version.number))
        return {
            "self": here,
            "status": here,
            "predict": self._absolute(f"{ROOT}/predict/{quote(name)}"),
            "artifact": f"{here}/artifact",
        }


class ReasonSerializer(StrictSerializer):
    reason = serializers.CharField(required=False, allow_blank=True, max_length=2000, default="")


class DecisionSerializer(ReasonSerializer):
    """An approval or a rejection; a rejection needs its reason."""


class AliasSerializer(serializers.ModelSerializer[Alias]):
    alias = serializers.CharField(source="name")
    model = serializers.CharField(source="model.name")
    version = serializers.IntegerField(source="version.number")

    class Meta:
        model = Alias
        fields = ("alias", "model", "version")


class AliasWishSerializer(ReasonSerializer):
    version = serializers.IntegerField(min_value=1, max_value=MAX_NUMBER)


class ArmSerializer(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    share = serializers.FloatField(help_text="Part of the traffic, 0 to 1.")
    role = serializers.ChoiceField(choices=[one.value for one in ArmRole])
    variant = serializers.CharField(allow_null=True)


class ReleaseSerializer(serializers.ModelSerializer[Release]):
    state = serializers.ChoiceField(choices=[one.value for one in ReleaseState])
    arms = serializers.SerializerMethodField()
    actor = serializers.CharField(source="actor_name")
    approver = serializers.SerializerMethodField()
    experiment = serializers.SerializerMethodField()
    rolled_back_to = serializers.IntegerField(
        source="rolled_back_to.number", default=None, allow_null=True
    )

    class Meta:
        model = Release
        fields = (
            "number",
            "state",
            "arms",
            "coverage",
            "experiment",
            "reason",
            "actor",
            "approver",
            "decision_reason",
            "created",
            "decided",
            "rolled_out_at",
            "rolled_back_to",
        )

    def get_arms(self, release: Release) -> list[dict[str, Any]]:
        return [
            {
                "version": arm.version,
                "share": round(arm.share, 9),
                "role": arm.role.value,
                "variant": arm.variant,
            }
            for arm in release.typed_arms()
        ]

    def get_approver(self, release: Release) -> str | None:
        return release.approver_name or None

    def get_experiment(self, release: Release) -> str | None:
        return release.experiment or None


class ArmWishSerializer(StrictSerializer):
    version = serializers.IntegerField(min_value=1, max_value=MAX_NUMBER)
    share = serializers.FloatField(min_value=0, max_value=1, default=1.0)
    role = serializers.ChoiceField(
        choices=[one.value for one in ArmRole], default=ArmRole.PRIMARY.value
    )
    variant = serializers.CharField(required=False, allow_null=True, default=None, max_length=100)


class ReleaseWishSerializer(StrictSerializer):
    version = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=MAX_NUMBER,
        help_text="One version that takes everything; or `arms`.",
    )
    arms = serializers.ListField(required=False, child=ArmWishSerializer(), max_length=20)
    reason = serializers.CharField(max_length=2000)
    expected_release = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=0,
        default=None,
        help_text="The live release you saw (0 for none); another one now is a 409.",
    )


class RollbackWishSerializer(ReasonSerializer):
    to = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=MAX_NUMBER,
        default=None,
        help_text="The release to go back to; the one before, when left out.",
    )
    expected_release = serializers.IntegerField(
        required=False, allow_null=True, min_value=0, default=None
    )


class EventSerializer(serializers.ModelSerializer[Event]):
    facts = serializers.JSONField()

    class Meta:
        model = Event
        fields = ("at", "verb", "actor_name", "reason", "facts")


class ServedAtSerializer(serializers.Serializer[Any]):
    """What served at a moment: nothing before the first release."""

    at = serializers.DateTimeField()
    release = ReleaseSerializer(allow_null=True)
    since = serializers.DateTimeField(allow_null=True)
    until = serializers.DateTimeField(allow_null=True, help_text="Null while it serves still.")


class EndpointSerializer(serializers.Serializer[Any]):
    """An endpoint, what is live there, and its newest releases and events."""

    model = serializers.CharField(source="model.name")
    environment = serializers.CharField()
    required = serializers.BooleanField()  # type: ignore[assignment]  # DRF takes it off the class
    release = ReleaseSerializer(source="live", allow_null=True)
    releases = ReleaseSerializer(many=True, source="newest")
    history = EventSerializer(many=True, source="events")
    served_at = ServedAtSerializer(
        allow_null=True, help_text="What served at the moment asked for with `at`, else null."
    )


class UploadSerializer(serializers.Serializer[Any]):
    """The multipart fields of an upload; those that are JSON are sent as text."""

    name = serializers.CharField(max_length=NAME_LENGTH, help_text="The model; made when new.")
    team = serializers.CharField(
        required=False, help_text="Slug of the team; may be left out with one team only."
    )
    format = serializers.CharField(required=False, help_text="`onnx` or `sklearn`.")
    signature = serializers.CharField(required=False, help_text="JSON: inputs and outputs.")
    metrics = serializers.CharField(required=False, help_text="JSON: name to number.")
    params = serializers.CharField(required=False, help_text="JSON object.")
    tags = serializers.CharField(required=False, help_text="JSON object.")
    lineage = serializers.CharField(required=False, help_text="JSON object.")
    example = serializers.CharField(required=False, help_text="JSON: a body of the predict API.")
    description = serializers.CharField(required=False)
    parent = serializers.IntegerField(  # type: ignore[assignment]  # DRF takes it off the class
        required=False, help_text="Number of the parent version."
    )
    file = serializers.FileField(help_text="The model; best sent last.")
