"""What the doors of accounts take and give."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from apps.accounts.models import ApiKey, Invitation, Membership, Plan, Team
from apps.accounts.policies import ENVIRONMENTS, Scope
from apps.accounts.services import keys
from apps.accounts.services.invitations import link


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
    code = serializers.CharField(
        required=False, max_length=64, help_text="Of the second factor, if the user has one."
    )
    cookie = serializers.BooleanField(
        default=False,
        help_text="For pages in a browser: the refresh token comes as a cookie that scripts "
        "cannot read, and `csrf` with it.",
    )


class RefreshSerializer(StrictSerializer):
    refresh = serializers.CharField(
        required=False,
        max_length=4096,
        help_text="Left out by a browser that holds it as a cookie; then `X-CSRFToken` is needed.",
    )


class TokenPairSerializer(serializers.Serializer[Any]):
    access = serializers.CharField(help_text="Opens doors for 30 minutes.")
    refresh = serializers.CharField(
        required=False,
        help_text="Makes one new pair, within 7 days, once: using it twice ends the sign-in. "
        "Left out when it comes as a cookie.",
    )
    csrf = serializers.CharField(
        required=False, help_text="For the header `X-CSRFToken`; with the cookie only."
    )


class RegisterSerializer(StrictSerializer):
    username = serializers.CharField(max_length=150)
    email = serializers.EmailField(max_length=254)
    password = serializers.CharField(max_length=1024, trim_whitespace=False)
    first_name = serializers.CharField(required=False, default="", max_length=150, allow_blank=True)
    last_name = serializers.CharField(required=False, default="", max_length=150, allow_blank=True)
    invitation = serializers.CharField(
        required=False,
        default="",
        max_length=100,
        allow_blank=True,
        help_text="The text `inv_...` of an invitation; needed unless anybody may register.",
    )


class RegisteredSerializer(serializers.Serializer[Any]):
    username = serializers.CharField()
    email = serializers.CharField()
    teams = serializers.ListField(child=serializers.CharField(), help_text="Slugs.")


class InvitationSerializer(serializers.ModelSerializer[Invitation]):
    team = serializers.SlugRelatedField[Team](slug_field="slug", read_only=True, allow_null=True)

    class Meta:
        model = Invitation
        fields = ("id", "email", "team", "role", "invited_by", "created", "expires")


class MadeInvitationSerializer(InvitationSerializer):
    invitation = serializers.SerializerMethodField(
        help_text="The text itself; it is shown only this once."
    )
    url = serializers.SerializerMethodField(help_text="The page where it is accepted.")

    class Meta(InvitationSerializer.Meta):
        fields = (*InvitationSerializer.Meta.fields, "invitation", "url")  # type: ignore[assignment]  # longer

    def get_invitation(self, _: Invitation) -> str:
        return str(self.context["text"])

    def get_url(self, _: Invitation) -> str:
        return link(self.context["text"])


class InvitationWishSerializer(StrictSerializer):
    email = serializers.EmailField(max_length=254)


class TeamInvitationWishSerializer(InvitationWishSerializer):
    role = serializers.ChoiceField(choices=Membership.RoleChoice.choices)


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
    plan = serializers.CharField()
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
    email = serializers.EmailField(required=False, max_length=254)
    current_password = serializers.CharField(
        required=False,
        max_length=1024,
        trim_whitespace=False,
        help_text="Needed for a new password or email address.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.keys() & {"password", "email"} and "current_password" not in attrs:
            raise serializers.ValidationError(
                {"current_password": "A new password or email address needs the current password."}
            )
        return attrs


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    team = serializers.SlugRelatedField[Team](slug_field="slug", read_only=True)
    owner = serializers.SlugRelatedField[Any](slug_field="username", read_only=True)
    models = serializers.ListField(child=serializers.CharField(), source="model_names")
    prefix = serializers.CharField(read_only=True)
    plan = serializers.CharField(source="plan_id", help_text="What it may use up.")
    networks = serializers.ListField(child=serializers.CharField())
    replaces = serializers.CharField(
        source="replaces_id", allow_null=True, help_text="Id of the key that it took over from."
    )

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
            "plan",
            "networks",
            "replaces",
            "created",
            "expires_at",
            "revoked_at",
            "revoked_by",
            "last_used_at",
            "last_used_address",
            "last_used_agent",
        )


class IssuedKeySerializer(KeySerializer):
    key = serializers.SerializerMethodField(help_text="The key itself; it is shown only this once.")

    class Meta(KeySerializer.Meta):
        fields = ("id", "key", *KeySerializer.Meta.fields[1:])  # type: ignore[assignment]  # longer

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

    plan = serializers.CharField(
        required=False,
        max_length=32,
        help_text="What it may use up; its owner's plan by default.",
    )
    networks = serializers.ListField(
        child=serializers.CharField(max_length=64),
        required=False,
        max_length=keys.MOST_NETWORKS,
        help_text="Networks it may be used from, as 192.0.2.0/24; empty for all.",
    )


class KeyChangeSerializer(StrictSerializer):
    name = serializers.CharField(required=False, max_length=120)
    scopes = serializers.ListField(
        child=serializers.CharField(max_length=64), required=False, max_length=32
    )
    models = serializers.ListField(
        child=serializers.RegexField(r"\A[a-z0-9][a-z0-9._-]*\Z", max_length=100),
        required=False,
        max_length=200,
    )
    environments = serializers.ListField(
        child=serializers.CharField(max_length=32), required=False, max_length=8
    )
    plan = serializers.CharField(required=False, max_length=32)
    networks = serializers.ListField(
        child=serializers.CharField(max_length=64), required=False, max_length=keys.MOST_NETWORKS
    )
    expires_at = serializers.DateTimeField(required=False, help_text="In two years at the latest.")


class RotationSerializer(StrictSerializer):
    overlap_hours = serializers.IntegerField(
        default=24,
        min_value=0,
        max_value=168,
        help_text="How long the old key stays good beside the new one.",
    )


# What the columns hold.
MOST_PER_MINUTE, MOST_PER_DAY = 2**31 - 1, 2**63 - 1


class PlanNumbersSerializer(StrictSerializer):
    title = serializers.CharField(max_length=60)
    requests_per_minute = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=MOST_PER_MINUTE,
        help_text="None is no limit.",
    )
    rows_per_minute = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=MOST_PER_MINUTE,
        help_text="Predictions; a call has as many as it has rows.",
    )
    rows_per_day = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=MOST_PER_DAY,
        help_text="The same in a day (UTC).",
    )
    rows_per_call = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=MOST_PER_MINUTE
    )
    counted_by = serializers.ChoiceField(
        required=False,
        choices=Plan.Counting.choices,
        help_text="Each key by itself, or all keys and tokens of a person together.",
    )
    is_offered = serializers.BooleanField(
        required=False, help_text="Whether a maintainer may give it to a key."
    )


class PlanWishSerializer(PlanNumbersSerializer):
    name = serializers.RegexField(r"\A[a-z0-9][a-z0-9-]*\Z", max_length=32)


class PlanSerializer(serializers.ModelSerializer[Plan]):
    class Meta:
        model = Plan
        fields = (
            "name",
            "title",
            "requests_per_minute",
            "rows_per_minute",
            "rows_per_day",
            "rows_per_call",
            "counted_by",
            "is_offered",
        )


class TeamSerializer(serializers.ModelSerializer[Team]):
    class Meta:
        model = Team
        fields = ("slug", "name", "created")


class TeamNameSerializer(StrictSerializer):
    name = serializers.CharField(max_length=120)


class TeamWishSerializer(TeamNameSerializer):
    slug = serializers.CharField(max_length=64)


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
