"""What pages, the API and the snapshot read of the registry."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Model, OuterRef, Prefetch, QuerySet, Subquery

from apps.core.errors import NotFound
from apps.core.models import Event
from apps.registry.models import Alias, Endpoint, ModelVersion, RegisteredModel, Release
from apps.registry.signature import signature_from_json
from apps.registry.snapshot import (
    EndpointBody,
    FullSpool,
    ModelSettings,
    RecordMode,
    Redaction,
    ReleaseBody,
    VersionBody,
)
from apps.registry.states import RELEASABLE, Environment, ReleaseState

HISTORY_LENGTH = 100
# Versions and releases of a model whose events stand in its history.
MOST_THINGS = 300


def living_models() -> QuerySet[RegisteredModel]:
    """Models that were not deleted, with their teams."""
    return RegisteredModel.objects.filter(deleted_at__isnull=True).select_related("team")


def find_model(name: str) -> RegisteredModel:
    """Find a model by its name; whose it is, is asked by the caller."""
    model = living_models().filter(name=name).first()
    if model is None:
        raise NotFound("There is no model of this name.")
    return model


def find_version(model: RegisteredModel, number: int) -> ModelVersion:
    """Find a version of a model."""
    version = ModelVersion.objects.select_related("model__team").filter(model=model, number=number)
    found = version.first()
    if found is None:
        raise NotFound(f"{model.name} has no version {number}.")
    return found


def aliases_of(model: RegisteredModel) -> list[Alias]:
    """The aliases of a model by name, with their versions."""
    found = Alias.objects.filter(model=model).select_related("version").order_by("name")
    return list(found.only("name", "model_id", "version__number"))


def version_ids(model: RegisteredModel, numbers: Iterable[int]) -> dict[int, int]:
    """Ids of some versions of a model by their numbers."""
    found = ModelVersion.objects.filter(model=model, number__in=set(numbers))
    return dict(found.values_list("number", "pk"))


def example_of(model: RegisteredModel, number: int) -> Any:
    """A question that a version answers, from its uploader or its validation."""
    found = ModelVersion.objects.filter(model=model, number=number)
    return found.values_list("example", flat=True).first() or {"instances": []}


def versions_for_list(model: RegisteredModel) -> QuerySet[ModelVersion]:
    """All versions of a model, newest first, without what no list shows."""
    return versions_of(model).defer(
        "report", "signature", "example", "declared_signature", "params", "lineage"
    )


def releasable_numbers(model: RegisteredModel) -> QuerySet[ModelVersion, int]:
    """Numbers of the versions that may serve, newest first."""
    found = ModelVersion.objects.filter(model=model, state__in=RELEASABLE).order_by("-number")
    return found.values_list("number", flat=True)


def find_alias(model: RegisteredModel, name: str) -> Alias:
    """Find an alias of a model."""
    alias = Alias.objects.select_related("version__model").filter(model=model, name=name).first()
    if alias is None:
        raise NotFound(f"{model.name} has no alias of this name.")
    return alias


def find_endpoint(model: RegisteredModel, environment: str) -> Endpoint:
    """Find the endpoint of a model in an environment."""
    endpoint = (
        Endpoint.objects.select_related("model__team")
        .filter(model=model, environment=environment)
        .first()
    )
    if endpoint is None:
        known = ", ".join(one.value for one in Environment)
        raise NotFound(f"There is no such environment; there are {known}.")
    return endpoint


def find_release(endpoint: Endpoint, number: int) -> Release:
    """Find a release of an endpoint."""
    release = releases_of(endpoint).filter(number=number).first()
    if release is None:
        raise NotFound(f"{endpoint} has no release {number}.")
    return release


def live_release(endpoint: Endpoint) -> Release | None:
    """Return what serves now."""
    return releases_of(endpoint).filter(state=ReleaseState.LIVE).first()


def releases_of(endpoint: Endpoint) -> QuerySet[Release]:
    """All releases of an endpoint, newest first: its deployment history."""
    return (
        Release.objects.filter(endpoint=endpoint)
        .select_related("endpoint__model", "rolled_back_to")
        .order_by("-number")
    )


SERVED = (ReleaseState.LIVE, ReleaseState.REPLACED)


@dataclass(frozen=True, slots=True)
class Served:
    """What served at a moment: a release, and until when (None: it serves still)."""

    release: Release
    since: datetime
    until: datetime | None


def served_at(endpoint: Endpoint, moment: datetime) -> Served | None:
    """Return what served at a moment; None before the first release.

    A release serves from the moment of its decision, that moment included, until the next one's.
    Releases go live in the order of their numbers, so the numbers break ties of the clock.
    """
    served = releases_of(endpoint).filter(state__in=SERVED, decided__isnull=False)
    release = served.filter(decided__lte=moment).first()
    if release is None or release.decided is None:
        return None
    after = served.filter(number__gt=release.number).order_by("number").first()
    return Served(release, release.decided, after.decided if after else None)


def awaiting_approval(releases: QuerySet[Release]) -> QuerySet[Release]:
    """Narrow releases to those that wait for a second person."""
    return releases.filter(state=ReleaseState.AWAITING_APPROVAL)


def versions_of(model: RegisteredModel) -> QuerySet[ModelVersion]:
    """All versions of a model, newest first."""
    return (
        ModelVersion.objects.filter(model=model)
        .select_related("model__team", "uploaded_by", "parent")
        .prefetch_related("aliases")
        .order_by("-number")
    )


def endpoints_of(model: RegisteredModel) -> list[Endpoint]:
    """The endpoints of a model in their order, each with its live release in ``live``."""
    live = Release.objects.filter(state=ReleaseState.LIVE).select_related("rolled_back_to")
    found = {
        endpoint.environment: endpoint
        for endpoint in Endpoint.objects.filter(model=model)
        .select_related("model")
        .prefetch_related(Prefetch("releases", queryset=live, to_attr="live"))
    }
    return [found[one.value] for one in Environment if one.value in found]


def models_for_list(models: QuerySet[RegisteredModel]) -> QuerySet[RegisteredModel]:
    """Add what lists show beside each name: the arms live in production, the newest version."""
    live = Release.objects.filter(
        endpoint__model=OuterRef("pk"),
        endpoint__environment=Environment.PRODUCTION,
        state=ReleaseState.LIVE,
    )
    newest = ModelVersion.objects.filter(model=OuterRef("pk")).order_by("-number")
    return models.annotate(
        live_arms=Subquery(live.values("arms")[:1]),
        newest_number=Subquery(newest.values("number")[:1]),
        newest_state=Subquery(newest.values("state")[:1]),
    )


def environments_serving(version: ModelVersion) -> list[str]:
    """Environments whose live release carries a version."""
    live = Release.objects.filter(
        endpoint__model_id=version.model_id, state=ReleaseState.LIVE
    ).select_related("endpoint")
    return [one.endpoint.environment for one in live if version.number in one.version_numbers]


def history_of(*things: RegisteredModel | ModelVersion | Endpoint | Release) -> QuerySet[Event]:
    """What happened to some things, newest first."""
    events = Event.objects.none()
    for thing in things:
        events |= Event.objects.filter(target_kind=thing._meta.label_lower, target_id=str(thing.pk))
    return events.order_by("-id")


def history_of_model(model: RegisteredModel) -> QuerySet[Event]:
    """What happened to a model, its newest versions and its newest releases, newest first."""
    versions = ModelVersion.objects.filter(model=model).order_by("-number")
    releases = Release.objects.filter(endpoint__model=model).order_by("-pk")
    return (
        Event.objects.filter(target_kind=model._meta.label_lower, target_id=str(model.pk))
        | _events_of(ModelVersion, versions.values_list("pk", flat=True)[:MOST_THINGS])
        | _events_of(Release, releases.values_list("pk", flat=True)[:MOST_THINGS])
    ).order_by("-id")


def _events_of(kind: type[Model], keys: Iterable[int]) -> QuerySet[Event]:
    ids = [str(key) for key in keys]
    return Event.objects.filter(target_kind=kind._meta.label_lower, target_id__in=ids)


def history_of_releases(releases: Iterable[Release]) -> QuerySet[Event]:
    """What happened to the releases of an endpoint, newest first."""
    ids = [str(release.pk) for release in releases]
    kind = Release._meta.label_lower
    return Event.objects.filter(target_kind=kind, target_id__in=ids).order_by("-id")


def settings_of(model: RegisteredModel) -> ModelSettings:
    """The model's own rules as the snapshot knows them, before what an endpoint adds."""
    return ModelSettings(
        cache_seconds=model.cache_seconds,
        record=RecordMode(model.record),
        sample_share=model.sample_share,
        full_spool=FullSpool(model.full_spool),
        redact={name: Redaction(how) for name, how in model.redact.items()},
        deadline_seconds=model.deadline_seconds,
    )


def endpoint_body(endpoint: Endpoint) -> EndpointBody:
    """What serving processes must know of an endpoint."""
    model = endpoint.model
    live = live_release(endpoint)
    aliases = Alias.objects.filter(model=model).values_list("name", "version__number")
    settings = settings_of(model)
    return EndpointBody(
        model=model.name,
        environment=endpoint.environment,
        team_id=model.team_id,
        release=None if live is None else release_body(live),
        aliases=dict(aliases),
        settings=ModelSettings(
            cache_seconds=settings.cache_seconds,
            record=settings.record,
            sample_share=settings.sample_share,
            full_spool=settings.full_spool,
            redact=settings.redact,
            deadline_seconds=settings.deadline_seconds,
            required=endpoint.required,
        ),
    )


def release_body(release: Release) -> ReleaseBody:
    """What serving processes must know of a release."""
    return ReleaseBody(
        number=release.number,
        arms=release.typed_arms(),
        salt=release.salt,
        coverage=release.coverage,
        namespace=release.namespace or None,
        experiment=release.experiment or None,
    )


def version_body(version: ModelVersion) -> VersionBody:
    """What serving processes must know of a version that validation found good."""
    return VersionBody(
        model=version.model.name,
        number=version.number,
        runtime=version.runtime,
        sha256=version.served_sha256,
        size=version.served_size,
        storage_key=version.served_key,
        resident_bytes=version.resident_bytes,
        signature=signature_from_json(version.signature),
    )
