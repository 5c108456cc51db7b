"""What pages, the API and the snapshot read of the registry."""

from collections.abc import Iterable

from django.db.models import Count, Exists, OuterRef, Prefetch, QuerySet

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
from apps.registry.states import Environment, ReleaseState

HISTORY_LENGTH = 100


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


def models_with_counts(models: QuerySet[RegisteredModel]) -> QuerySet[RegisteredModel]:
    """Add what a list of models shows beside each name."""
    live = Release.objects.filter(
        endpoint__model=OuterRef("pk"),
        endpoint__environment=Environment.PRODUCTION,
        state=ReleaseState.LIVE,
    )
    return models.annotate(version_count=Count("versions"), is_in_production=Exists(live))


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
