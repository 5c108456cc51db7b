"""GET audit and audit/{event}: who did what; events of other teams do not exist."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.api.authentication import caller
from apps.accounts.api.serializers import StrictSerializer
from apps.accounts.callers import Caller
from apps.accounts.models import Team
from apps.accounts.policies import Action, Thing, may, require, unseen
from apps.core import sentences
from apps.core.api.pagination import NewestFirst
from apps.core.api.schema import page_of, problems
from apps.core.errors import NotAllowed
from apps.core.models import Event

# What an address of the list may ask for, and the field that answers it.
_EXACT = {
    "verb": "verb",
    "actor_kind": "actor_kind",
    "actor_id": "actor_id",
    "address": "address",
    "object_kind": "target_kind",
    "object_id": "target_id",
    "request_id": "request_id",
}


def audited_teams(who: Caller) -> list[int]:
    """Return the teams whose events a caller may read."""
    teams = who.roles if who.key is None else (who.key.team_id,)
    return [team for team in teams if may(who, Action.AUDIT_READ, Thing(team))]


def events_for(who: Caller) -> QuerySet[Event]:
    """Return the events that exist for a caller: those of audited teams, all for an admin."""
    rows = Event.objects.all()
    return rows if who.sees_all else rows.filter(team_id__in=audited_teams(who))


def found_in(rows: QuerySet[Event], text: str) -> QuerySet[Event]:
    """Look for words anywhere in names and reasons; ids and addresses are known whole."""
    return rows.filter(
        Q(target_name__icontains=text)
        | Q(actor_name__icontains=text)
        | Q(reason__icontains=text)
        | Q(request_id=text)
        | Q(address=text)
        | Q(target_id=text)
    )


class AuditSearchSerializer(StrictSerializer):
    """Which events are wanted."""

    q = serializers.CharField(
        required=False, max_length=200, help_text="In names and reasons; or a whole id or address."
    )
    verb = serializers.CharField(required=False, max_length=64, help_text="As `release.live`.")
    actor = serializers.CharField(
        required=False, max_length=200, help_text="Beginning of the name of who did it."
    )
    actor_kind = serializers.CharField(required=False, max_length=16)
    actor_id = serializers.CharField(required=False, max_length=64)
    address = serializers.CharField(required=False, max_length=64)
    object_kind = serializers.CharField(
        required=False, max_length=64, help_text="As `registry.release`."
    )
    object_id = serializers.CharField(required=False, max_length=64)
    request_id = serializers.CharField(required=False, max_length=128)
    team = serializers.CharField(required=False, max_length=64, help_text="The team's slug.")
    since = serializers.DateTimeField(required=False, help_text="At or after.")
    until = serializers.DateTimeField(required=False, help_text="Before.")
    cursor = serializers.CharField(required=False, max_length=200)
    page_size = serializers.IntegerField(required=False, min_value=1, max_value=200, default=50)


class AuditActorSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(source="actor_kind", help_text="`user`, `key`, `system`, …")
    id = serializers.CharField(source="actor_id")
    name = serializers.CharField(source="actor_name")
    address = serializers.CharField(help_text="Empty when it came from no request.")


class AuditObjectSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(source="target_kind")
    id = serializers.CharField(source="target_id")
    name = serializers.CharField(source="target_name", help_text="As it was called then.")


class AuditChangeSerializer(serializers.Serializer[Any]):
    field = serializers.CharField()
    before = serializers.CharField(allow_blank=True)
    after = serializers.CharField(allow_blank=True)


@extend_schema_field({"type": "object", "additionalProperties": {}})
class AuditFacts(serializers.JSONField):
    """What the event tells besides, by its verb."""


class AuditSealSerializer(serializers.Serializer[Any]):
    seq = serializers.IntegerField(help_text="Its place in the chain.")
    hash = serializers.CharField()
    prev_hash = serializers.CharField()
    scheme = serializers.CharField(help_text="`sha256`, or `hmac-sha256:` and the key's name.")
    sealed_at = serializers.DateTimeField()


class AuditEventSerializer(serializers.Serializer[Any]):
    """Who did what to which thing, when, from where and why."""

    id = serializers.IntegerField()
    at = serializers.DateTimeField()
    verb = serializers.CharField()
    sentence = serializers.SerializerMethodField()
    actor = AuditActorSerializer(source="*")
    object = AuditObjectSerializer(source="*")
    team = serializers.SerializerMethodField()
    reason = serializers.CharField()
    changes = serializers.SerializerMethodField()
    facts = AuditFacts()
    request_id = serializers.CharField()
    seal = serializers.SerializerMethodField()

    def get_sentence(self, event: Event) -> str:
        return sentences.sentence(event)

    @extend_schema_field({"type": "string", "nullable": True})
    def get_team(self, event: Event) -> str | None:
        teams: Mapping[int | None, str] = self.context["teams"]
        return teams.get(event.team_id)

    @extend_schema_field(AuditChangeSerializer(many=True))
    def get_changes(self, event: Event) -> list[dict[str, str]]:
        rows = sentences.changes(event.facts)
        return [{"field": name, "before": old, "after": new} for name, old, new in rows]

    @extend_schema_field(AuditSealSerializer(allow_null=True))
    def get_seal(self, event: Event) -> Any:
        seal = getattr(event, "seal", None)  # the sealer runs every second
        return AuditSealSerializer(seal).data if seal else None


class AuditView(APIView):
    @extend_schema(
        operation_id="list_audit_events",
        summary="What happened in the teams that I maintain, newest first",
        parameters=[AuditSearchSerializer],
        responses={200: page_of(AuditEventSerializer, "AuditPage"), **problems(400, 401, 403)},
        tags=["audit"],
    )
    def get(self, request: Request) -> Response:
        who = _reader(request)
        form = AuditSearchSerializer(data=request.query_params.dict())
        form.is_valid(raise_exception=True)
        pages = NewestFirst()
        rows = _wanted(events_for(who), form.validated_data).select_related("seal")
        page = pages.paginate_queryset(rows, request, view=self) or []
        return pages.get_paginated_response(_told(page))


class AuditEventView(APIView):
    @extend_schema(
        operation_id="read_audit_event",
        summary="One event, with its link in the chain",
        responses={200: AuditEventSerializer, **problems(401, 403, 404)},
        tags=["audit"],
    )
    def get(self, request: Request, event: int) -> Response:
        rows = events_for(_reader(request)).select_related("seal").filter(pk=event)
        if (found := rows.first()) is None:
            raise unseen(str(event))
        return Response(_told([found])[0])


def _reader(request: Request) -> Caller:
    who = caller(request)
    if who.key is not None:
        require(who, Action.AUDIT_READ, Thing(who.key.team_id))
    if not who.sees_all and not audited_teams(who):
        raise NotAllowed("Maintainers of a team and platform admins read the audit record.")
    return who


def _wanted(rows: QuerySet[Event], asked: Mapping[str, Any]) -> QuerySet[Event]:
    rows = rows.filter(**{field: asked[name] for name, field in _EXACT.items() if name in asked})
    if "actor" in asked:
        rows = rows.filter(actor_name__istartswith=asked["actor"])
    if "q" in asked:
        rows = found_in(rows, asked["q"])
    if "team" in asked:
        rows = rows.filter(team_id__in=Team.objects.filter(slug=asked["team"]).values("pk"))
    return _between(rows, asked.get("since"), asked.get("until"))


def _between(
    rows: QuerySet[Event], since: datetime | None, until: datetime | None
) -> QuerySet[Event]:
    rows = rows.filter(at__gte=since) if since else rows
    return rows.filter(at__lt=until) if until else rows


def _told(found: Sequence[Event]) -> Any:
    """Return events as the door gives them; the teams' names come in one query."""
    teams = Team.objects.in_bulk({one.team_id for one in found if one.team_id})
    context = {"teams": {pk: team.slug for pk, team in teams.items()}}
    return AuditEventSerializer(found, many=True, context=context).data
