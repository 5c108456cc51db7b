"""What the pages of an endpoint and of a release show, in the order in which people ask."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.paginator import Page, Paginator
from django.http import HttpRequest
from django.utils import timezone

from apps.accounts.admin.door import caller_of_request
from apps.accounts.policies import Action, may
from apps.core import words
from apps.core.errors import Invalid
from apps.registry import selectors
from apps.registry.admin.release_page import (
    arms_words,
    bars_of,
    preview_words,
    thing_of,
    version_pages,
)
from apps.registry.api.moments import moment_of
from apps.registry.models import Endpoint, ModelVersion, Release
from apps.registry.selectors import SERVED, Served
from apps.registry.services import preview, releases
from apps.registry.states import RELEASABLE, ReleaseState

PER_PAGE = 15
HISTORY = 30


@dataclass(frozen=True, slots=True)
class Entry:
    """One release in the timeline."""

    release: Release
    serves: str
    tone: str
    may_go_back: bool


def endpoint_context(request: HttpRequest, endpoint: Endpoint) -> dict[str, Any]:
    """What serves now, what served when, and every release with its way back."""
    caller = caller_of_request(request)
    live = selectors.live_release(endpoint)
    may_roll_back = may(caller, Action.RELEASE_ROLL_BACK, thing_of(endpoint))
    page = Paginator(selectors.releases_of(endpoint), PER_PAGE).get_page(request.GET.get("page"))
    machine = _time_machine(request, endpoint)
    pages = _version_pages(endpoint, [*page, *_some(live), *_some(machine.get("then"))])
    then: Served | None = machine.get("served")
    target = releases.rollback_target(endpoint) if may_roll_back and live else None
    return {
        **machine,
        "endpoint": endpoint,
        "model": endpoint.model,
        "live": live,
        "bars": bars_of(live.typed_arms(), pages) if live else [],
        "then_bars": bars_of(then.release.typed_arms(), pages) if then else [],
        "releases": _entries(page, may_roll_back=may_roll_back),
        "releases_page": page,
        "back": target,
        "newest_ready": _newest_ready(request, endpoint, live),
    }


def _some(release: Release | None) -> list[Release]:
    return [release] if release else []


def _time_machine(request: HttpRequest, endpoint: Endpoint) -> dict[str, Any]:
    """What served at the moment that the address names."""
    asked = request.GET.get("at", "").replace("\x00", "")
    if not asked:
        return {}
    try:
        moment = moment_of(asked)
    except Invalid as error:
        return {"at_error": error.message, "at_asked": asked}
    served = selectors.served_at(endpoint, moment)
    return {
        "at": moment,
        "at_asked": moment.strftime("%Y-%m-%dT%H:%M:%S"),
        "is_ahead": moment > timezone.now(),
        "served": served,
        "then": served.release if served else None,
    }


def _version_pages(endpoint: Endpoint, shown: Iterable[Release]) -> dict[int, str]:
    numbers = {number for one in shown for number in one.version_numbers}
    return version_pages(endpoint.model_id, numbers)


def _entries(page: Page[Release], *, may_roll_back: bool) -> list[Entry]:
    return [
        Entry(
            release,
            arms_words(release.typed_arms()),
            words.tone_of(release.state),
            may_roll_back and release.state == ReleaseState.REPLACED,
        )
        for release in page
    ]


def _newest_ready(
    request: HttpRequest, endpoint: Endpoint, live: Release | None
) -> ModelVersion | None:
    """Return what would be released next, to those who may ask; not what serves all by itself."""
    if not may(caller_of_request(request), Action.RELEASE_ASK, thing_of(endpoint)):
        return None
    ready = ModelVersion.objects.filter(model_id=endpoint.model_id, state__in=RELEASABLE)
    newest = ready.only("pk", "number").order_by("-number").first()
    alone = live is not None and newest is not None and live.version_numbers == {newest.number}
    return None if alone else newest


def release_context(request: HttpRequest, release: Release) -> dict[str, Any]:
    """What a release serves, who asked and who decided; while it waits, what it would change."""
    caller = caller_of_request(request)
    endpoint = release.endpoint
    waits = release.state == ReleaseState.AWAITING_APPROVAL
    may_roll_back = may(caller, Action.RELEASE_ROLL_BACK, thing_of(endpoint))
    pages = version_pages(endpoint.model_id, set(release.version_numbers))
    context: dict[str, Any] = {
        "release": release,
        "endpoint": endpoint,
        "model": endpoint.model,
        "bars": bars_of(release.typed_arms(), pages),
        "serves": arms_words(release.typed_arms()),
        "is_waiting": waits,
        "is_live": release.state == ReleaseState.LIVE,
        "until": _until(release),
        "rolled_out_in": _rolled_out_in(release),
        "may_go_back": may_roll_back and release.state == ReleaseState.REPLACED,
        "events": selectors.history_of(release)[:HISTORY],
    }
    return context | (_decision(request, release) if waits else {})


def _decision(request: HttpRequest, release: Release) -> dict[str, Any]:
    """What the one who decides must see, and what the others are told instead."""
    caller = caller_of_request(request)
    found = preview.of_waiting(release, caller=caller)
    names = preview.deciders_of(
        release.endpoint, Action.RELEASE_APPROVE, but=release.requested_by_id
    )
    is_asker = release.requested_by_id == caller.user_id
    return preview_words(found) | {
        "is_asker": is_asker,
        "may_decide": may(caller, Action.RELEASE_APPROVE, thing_of(release.endpoint)),
        "deciders": ", ".join([*names[:5], "a platform admin"]),
    }


def _until(release: Release) -> datetime | None:
    """Return when the next release took over from one that served."""
    if release.state not in SERVED:
        return None
    after = selectors.releases_of(release.endpoint).filter(
        number__gt=release.number, state__in=SERVED
    )
    following = after.order_by("number").first()
    return following.decided if following else None


def _rolled_out_in(release: Release) -> str:
    if release.rolled_out_at is None or release.decided is None:
        return ""
    return words.seconds_words(max(0.0, (release.rolled_out_at - release.decided).total_seconds()))
