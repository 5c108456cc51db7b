"""How far a release is, worker by worker; asks for itself again until all have it."""

import hashlib
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from apps.accounts.policies import Action
from apps.core.words import seconds_words
from apps.inference.pages.door import model_for, page
from apps.inference.worker_status import Rollout, rollout_of
from apps.registry import selectors


@page
@require_GET
def rollout(request: HttpRequest, model: str, environment: str, number: int) -> HttpResponse:
    """Draw the workers and how far each is; nothing when ``seen`` is what would be drawn."""
    _, thing = model_for(request, model, Action.MODEL_READ)
    endpoint = selectors.find_endpoint(thing, environment)
    found = rollout_of(selectors.find_release(endpoint, number))
    seen = hashlib.sha256(repr(found).encode()).hexdigest()[:16]
    if request.GET.get("seen") == seen:
        return HttpResponse(status=HTTPStatus.NO_CONTENT)  # htmx leaves the part as it is
    words = {
        "rollout": found,
        "summary": _summary(found),
        "model": model,
        "environment": environment,
        "seen": seen,
    }
    return render(request, "inference/rollout.html", words)


def _summary(found: Rollout) -> str:
    """Say how far it is in one sentence."""
    if not found.is_live:
        return f"Release {found.number} is not live; workers follow another one."
    every = len(found.heard)
    if not every:
        return "No serving process has reported yet. The release is live as soon as one starts."
    verb = "worker serves" if every == 1 else "workers serve"
    said = f"{found.serving} of {every} {verb} release {found.number}"
    if found.is_complete:
        return f"{said}; done after {seconds_words(found.seconds)}."
    if found.failed:
        failing = "1 worker" if found.failed == 1 else f"{found.failed} workers"
        return (
            f"{said}; {failing} cannot load it and tries again. "
            "What served before goes on answering there."
        )
    return f"{said}."
