"""The addresses of every page and fragment of the admin, for one thing of each kind."""

from collections.abc import Iterator

from django.urls import reverse

from apps.accounts.models import ApiKey
from apps.core.models import Event
from apps.inference.models import Prediction
from apps.registry.models import Endpoint, ModelVersion, Release
from benchmarks.estate import Estate

LISTS = (
    "registry_registeredmodel",
    "registry_modelversion",
    "registry_endpoint",
    "registry_release",
    "inference_prediction",
    "accounts_apikey",
    "accounts_team",
    "accounts_user",
    "core_event",
    "core_work",
)
MODEL_TABS = ("overview", "versions", "traffic", "predictions", "history", "settings")


def pages_of(estate: Estate) -> Iterator[tuple[str, str]]:
    """Yield name and address of every page; the model is the busiest one."""
    yield "home", reverse("admin:index")
    for name in LISTS:
        yield f"{name} list", reverse(f"admin:{name}_changelist")
    model = estate.models[0]
    page = reverse("admin:registry_registeredmodel_change", args=[model.pk])
    for tab in MODEL_TABS:
        yield f"model, {tab}", f"{page}?tab={tab}"
    version = ModelVersion.objects.filter(model=model).order_by("-number")[0]
    yield "version", reverse("admin:registry_modelversion_change", args=[version.pk])
    yield "release dialog", reverse("admin:registry_modelversion_release", args=[version.pk])
    yield "upload", reverse("admin:registry_modelversion_add")
    endpoint = Endpoint.objects.get(model=model, environment="production")
    yield "endpoint", reverse("admin:registry_endpoint_change", args=[endpoint.pk])
    release = Release.objects.filter(endpoint=endpoint).order_by("-number")[0]
    yield "release", reverse("admin:registry_release_change", args=[release.pk])
    prediction = Prediction.objects.filter(model=model.name).order_by("-ts")[0]
    yield "prediction", reverse("admin:inference_prediction_change", args=[prediction.pk])
    key = ApiKey.objects.filter(team=model.team).order_by("created")[0]
    yield "key", reverse("admin:accounts_apikey_change", args=[key.pk])
    yield "team", reverse("admin:accounts_team_change", args=[model.team_id])
    event = Event.objects.filter(team_id=model.team_id).order_by("-pk")[0]
    yield "event", reverse("admin:core_event_change", args=[event.pk])
    yield from _fragments(estate, version, key)


def _fragments(estate: Estate, version: ModelVersion, key: ApiKey) -> Iterator[tuple[str, str]]:
    model = estate.models[0].name
    named: tuple[tuple[str, list[object]], ...] = (
        ("inference-pages:traffic", []),
        ("inference-pages:model-traffic", [model]),
        ("inference-pages:version-traffic", [model, 1]),
        ("inference-pages:endpoint-traffic", [model, "production"]),
        ("inference-pages:endpoint-rate", [model, "production"]),
        ("inference-pages:model-predictions", [model]),
        ("inference-pages:version-try", [model, version.number]),
        ("inference-pages:rollout", [model, "production", 3]),
        ("inference-pages:key-usage", [key.pk]),
        ("inference-pages:team-usage", [estate.teams[0].pk]),
        ("registry-pages:team-models", [estate.teams[0].pk]),
        ("monitoring:bell", []),
        ("monitoring:notifications", []),
    )
    for name, args in named:
        for span in ("", "?range=quarter") if "traffic" in name or "usage" in name else ("",):
            yield f"{name}{span}", f"{reverse(name, args=args)}{span}"
    cells = reverse("inference-pages:cells")
    names = ",".join(one.name for one in estate.models[:50])
    yield "cells of models", f"{cells}?what=model-rates&ids={names}"
    keys = ",".join(one.pk for one in estate.keys[:50])
    yield "cells of keys", f"{cells}?what=key-calls&ids={keys}"
