"""What the doors of accounts take and give."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from apps.accounts.models import ApiKey, Membership, Team
from apps.accounts.policies import ENVIRONMENTS, Scope


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields it does not know: a misspelt name must not be silently ignored."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = {
                name: ["There is no such field."] for name in data if name not in self.fields
            }
            if unknown:
                raise serializers.ValidationError(unknown)
        return super().to_internal_value(data)


class SignInSerializer(StrictSerializer):
    username = serializers.CharField(
        max_length=254, help_text="The user's name, or the email address."
    )
    password = serializers.CharField(max_length=1024, trim_whitespace=False)


class RefreshSerializer(StrictSerializer):
    refresh = serializers.CharField(max_length=4096)


class TokenPairSerializer(serializers.Serializer[Any]):
    access = serializers.CharField(help_text="Opens doors for 30 minutes.")
    refresh = serializers.CharField(help_text="Makes one new pair, within 7 days.")


class MyTeamSerializer(serializers.Serializer[Any]):
    slug = serializers.CharField()
    name = serializers.CharField()
    role = serializers.ChoiceField(choices=Membership.RoleChoice.choices)


class MyKeySerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    models = serializers.ListField(child=serializers.CharField())
    environments = serializers.ListField(child=serializers.CharField())


class MeSerializer(serializers.Serializer[Any]):
    username = serializers.CharField()
    email = serializers.CharField()
    first_name = serializers.CharField()
    last_name = serializers.CharField()
    is_admin = serializers.BooleanField()
    permissions = serializers.ListField(child=serializers.CharField())
    teams = MyTeamSerializer(many=True)
    key = MyKeySerializer(allow_null=True, help_text="The key that was presented, if one was.")


class MeChangeSerializer(StrictSerializer):
    first_name = serializers.CharField(required=False, max_length=150, allow_blank=True)
    last_name = serializers.CharField(required=False, max_length=150, allow_blank=True)
    password = serializers.CharField(
        required=False,
        max_length=1024,
        trim_whitespace=False,
        help_text="A new password; every token ends.",
    )
    current_password = serializers.CharField(required=False, max_length=1024, trim_whitespace=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "password" in attrs and "current_password" not in attrs:
            raise serializers.ValidationError(
                {"current_password": "A new password needs the current one."}
            )
        return attrs


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    team = serializers.SlugRelatedField[Team](slug_field="slug", read_only=True)
    owner = serializers.SlugRelatedField[Any](slug_field="username", read_only=True)
    models = serializers.ListField(child=serializers.CharField(), source="model_names")
    prefix = serializers.CharField(read_only=True)

    class Meta:
        model = ApiKey
        fields = (
            "id",
            "name",
            "prefix",
            "last4",
            "kind",
            "team",
            "owner",
            "created_by",
            "scopes",
            "models",
            "environments",
            "created",
            "expires_at",
            "revoked_at",
            "revoked_by",
        )


class IssuedKeySerializer(KeySerializer):
    key = serializers.SerializerMethodField(help_text="The key itself; it is shown only this once.")

    class Meta(KeySerializer.Meta):
        fields = ("id", "key", *KeySerializer.Meta.fields[1:])  # type: ignore[assignment]

    def get_key(self, _: ApiKey) -> str:
        return str(self.context["key"])


class KeyWishSerializer(StrictSerializer):
    name = serializers.CharField(max_length=120)
    team = serializers.CharField(
        required=False, max_length=64, help_text="Slug; may be left out with one team only."
    )
    kind = serializers.ChoiceField(choices=ApiKey.Kind.choices, default="live")
    scopes = serializers.ListField(
        child=serializers.CharField(max_length=64),
        max_length=32,
        help_text=f"Some of: {', '.join(Scope)}.",
    )
    models = serializers.ListField(
        child=serializers.RegexField(r"\A[a-z0-9][a-z0-9._-]*\Z", max_length=100),
        required=False,
        max_length=200,
        help_text="Names of the models it may use; empty for all of the team.",
    )
    environments = serializers.ListField(
        child=serializers.CharField(max_length=32),
        required=False,
        max_length=8,
        help_text=f"Some of: {', '.join(ENVIRONMENTS)}. A live key has production by default.",
    )
    expires_at = serializers.DateTimeField(
        required=False, help_text="In a year by default, in two years at the latest."
    )


class TeamSerializer(serializers.ModelSerializer[Team]):
    class Meta:
        model = Team
        fields = ("slug", "name", "created")


class TeamWishSerializer(StrictSerializer):
    slug = serializers.CharField(max_length=64)
    name = serializers.CharField(max_length=120)


class MemberSerializer(serializers.ModelSerializer[Membership]):
    username = serializers.CharField(source="user.username")
    is_active = serializers.BooleanField(source="user.is_active")

    class Meta:
        model = Membership
        fields = ("username", "role", "is_active", "created")


class RoleSerializer(StrictSerializer):
    role = serializers.ChoiceField(choices=Membership.RoleChoice.choices)


class MemberWishSerializer(RoleSerializer):
    username = serializers.CharField(max_length=150)
