"""The pages on which something is released, decided or rolled back: what changes, checks, why.

They are pages with an address of their own, so that a colleague can be shown one. The form carries
the number of the release that its reader saw live: of two people who press the button, one wins and
the other is told so on the form.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from apps.accounts.admin.door import caller_of_request
from apps.accounts.callers import Caller
from apps.accounts.policies import Action, Thing, may, require
from apps.accounts.selectors import actor_of
from apps.core import words
from apps.core.charts import colour_of
from apps.core.errors import PlatformError
from apps.registry import selectors
from apps.registry.models import Endpoint, ModelVersion, Release
from apps.registry.release_checks import Move, versions_words
from apps.registry.services import preview, releases
from apps.registry.services.preview import Preview
from apps.registry.snapshot import Arm, ArmRole
from apps.registry.states import Environment, ReleaseState

# A share is a sum of differences: 0.1 may be 0.09999999999999998.
DIGITS = 6
ENVIRONMENTS = [(one.value, one.value) for one in reversed(Environment)]


class ReasonedForm(forms.Form):
    """Why, and the live release that was seen when it was written."""

    reason = forms.CharField(
        max_length=releases.MAX_REASON,
        error_messages={"required": "Say why; the reason stays in the history."},
        widget=forms.Textarea(attrs={"rows": 3, "class": "mp-prose"}),
    )
    # None: whoever sends the form without the page does not look; 0: nothing was live.
    expected_release = forms.IntegerField(
        required=False, min_value=0, max_value=2**31 - 1, widget=forms.HiddenInput
    )


class WishForm(forms.Form):
    """Where to, and how much; what the preview needs."""

    environment = forms.ChoiceField(choices=ENVIRONMENTS, initial=Environment.PRODUCTION.value)
    share = forms.IntegerField(
        min_value=1,
        max_value=100,
        initial=100,
        error_messages={
            "invalid": "Write a whole number from 1 to 100.",
            "required": "Write a whole number from 1 to 100.",
            "min_value": "At least 1 %%.",
            "max_value": "At most 100 %%.",
        },
    )


class ReleaseForm(WishForm, ReasonedForm):
    """A version's release."""


# --- release ------------------------------------------------------------------------------------


@never_cache
@require_http_methods(["GET", "POST"])
def release_version(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for a version's release, after seeing what it changes."""
    version = _version(request, pk)
    if request.method == "POST":
        return _release(request, version)
    wish = WishForm(_wished(request))
    if request.headers.get("HX-Request") == "true":
        return render(
            request, "admin/registry/release_preview.html", _parts(request, version, wish)
        )
    form = ReleaseForm(initial=_wished(request))
    return _page(request, version, form, _parts(request, version, wish))


def _version(request: HttpRequest, pk: int) -> ModelVersion:
    """Find the version; another team's is not there, and a viewer may not ask for a release."""
    rows = ModelVersion.objects.filter(pk=pk, model__deleted_at__isnull=True)
    version = rows.select_related("model__team").first()
    caller = caller_of_request(request)
    if version is None:
        raise Http404
    thing = Thing(version.model.team_id, version.model.name)
    if not may(caller, Action.MODEL_READ, thing):
        raise Http404
    if not may(caller, Action.RELEASE_ASK, thing):
        raise PermissionDenied
    return version


def _wished(request: HttpRequest) -> dict[str, str]:
    """Return what the address asks for, and the rest as it usually is."""
    return {
        "environment": request.GET.get("environment") or Environment.PRODUCTION.value,
        "share": request.GET.get("share") or "100",
    }


def _parts(request: HttpRequest, version: ModelVersion, wish: forms.Form) -> dict[str, Any]:
    """What the preview shows for a wish; a wish that cannot be read shows what is wrong."""
    if not wish.is_valid():
        return {"wish_errors": [one for found in wish.errors.values() for one in found]}
    endpoint = selectors.find_endpoint(version.model, wish.cleaned_data["environment"])
    found = preview.of_wish(
        endpoint, version, wish.cleaned_data["share"], caller=caller_of_request(request)
    )
    verb = "Ask for release" if found.waits else "Release"
    return preview_words(found) | {"button": f"{verb} to {endpoint.environment}"}


def _page(
    request: HttpRequest,
    version: ModelVersion,
    form: forms.Form,
    parts: dict[str, Any],
    status: int = HTTPStatus.OK,
) -> HttpResponse:
    context = {
        **admin.site.each_context(request),
        **parts,
        "title": f"Release {version}",
        "version": version,
        "form": form,
    }
    return render(request, "admin/registry/release_version.html", context, status=status)


def _release(request: HttpRequest, version: ModelVersion) -> HttpResponse:
    form = ReleaseForm(request.POST)
    status = HTTPStatus.BAD_REQUEST
    if form.is_valid():
        try:
            made = _make(caller_of_request(request), version, form.cleaned_data)
        except PlatformError as error:
            form.add_error(None, error.message)
            status = error.status
        else:
            messages.success(request, _made_words(made))
            return HttpResponseRedirect(words.page_of(made))
    wish = WishForm({**_wished(request), **_given(request.POST, WishForm)})
    return _page(request, version, form, _parts(request, version, wish), status)


def _given(sent: Any, form: type[forms.Form]) -> dict[str, str]:
    return {name: sent[name] for name in form.base_fields if name in sent}


def _make(caller: Caller, version: ModelVersion, wish: dict[str, Any]) -> Release:
    environment = wish["environment"]
    waits = releases.needs_approval(environment)
    asked = Action.RELEASE_ASK if waits else Action.RELEASE_MAKE
    require(caller, asked, Thing(version.model.team_id, version.model.name, environment))
    endpoint = selectors.find_endpoint(version.model, environment)
    # Read without its lock: `expected_release` refuses when another one went live since.
    live = selectors.live_release(endpoint)
    expected = wish["expected_release"]
    if expected is None:
        expected = live.number if live else 0
    return releases.make_release(
        endpoint,
        arms=releases.arms_with(live, version.number, wish["share"]),
        reason=wish["reason"],
        expected_release=expected,
        actor=actor_of(caller),
        person_id=caller.user_id,
    )


def _made_words(made: Release) -> str:
    if made.state == ReleaseState.LIVE:
        return f"Release {made.number} is live; workers take it over as soon as it is warm."
    return f"Release {made.number} waits for another person's approval."


# --- roll back ----------------------------------------------------------------------------------


@never_cache
@require_http_methods(["GET", "POST"])
def roll_back(request: HttpRequest, pk: int) -> HttpResponse:
    """Go back to what a release served, after seeing what it changes."""
    target = _release_for(request, pk, Action.RELEASE_ROLL_BACK)
    if request.method == "GET":
        return _rollback_page(request, target, ReasonedForm())
    form = ReasonedForm(request.POST)
    status = HTTPStatus.BAD_REQUEST
    if form.is_valid():
        caller = caller_of_request(request)
        try:
            made = releases.roll_back(
                target.endpoint,
                to=target.number,
                reason=form.cleaned_data["reason"],
                expected_release=form.cleaned_data["expected_release"],
                actor=actor_of(caller),
                person_id=caller.user_id,
            )
        except PlatformError as error:
            form.add_error(None, error.message)
            status = error.status
        else:
            said = f"Release {made.number} serves what release {target.number} served."
            messages.success(request, said)
            return HttpResponseRedirect(words.page_of(made))
    return _rollback_page(request, target, form, status)


def _release_for(request: HttpRequest, pk: int, action: Action) -> Release:
    """Find a release for what the caller wants to do; another team's is not there."""
    rows = Release.objects.filter(pk=pk, endpoint__model__deleted_at__isnull=True)
    target = rows.select_related("endpoint__model__team").first()
    caller = caller_of_request(request)
    if target is None:
        raise Http404
    thing = thing_of(target.endpoint)
    if not may(caller, Action.MODEL_READ, thing):
        raise Http404
    if not may(caller, action, thing):
        raise PermissionDenied
    return target


def _rollback_page(
    request: HttpRequest, target: Release, form: forms.Form, status: int = HTTPStatus.OK
) -> HttpResponse:
    found = preview.of_rollback(target, caller=caller_of_request(request))
    parts = preview_words(found)
    if target.state != ReleaseState.REPLACED:
        # Said here in words; the action refuses it whatever is sent.
        is_live = target.state == ReleaseState.LIVE
        said = "is live already" if is_live else "never served, so there is nothing to go back to"
        parts["blocking"] = [*parts["blocking"], f"Release {target.number} {said}."]
    context = {
        **admin.site.each_context(request),
        **parts,
        "title": f"Roll back {target.endpoint} to release {target.number}",
        "button": f"Roll back to release {target.number}",
        "target": target,
        "form": form,
    }
    return render(request, "admin/registry/release_rollback.html", context, status=status)


# --- approve, reject ----------------------------------------------------------------------------

APPROVE, REJECT = "approve", "reject"


class DecisionForm(ReasonedForm):
    """What the second person says."""

    decision = forms.ChoiceField(choices=[(APPROVE, APPROVE), (REJECT, REJECT)])


@never_cache
@require_http_methods(["POST"])
def decide(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve or reject a waiting release; how it went is said on the release's page."""
    waiting = _release_for(request, pk, Action.RELEASE_APPROVE)
    form = DecisionForm(request.POST)
    if not form.is_valid():
        said = " ".join(str(one) for found in form.errors.values() for one in found)
        messages.error(request, said)
        return HttpResponseRedirect(words.page_of(waiting))
    try:
        decided = _decided(caller_of_request(request), waiting, form.cleaned_data)
    except PlatformError as error:
        messages.error(request, error.message)
    else:
        state = words.state_words(decided.state)
        messages.success(request, f"Release {decided.number} is {state}.")
    return HttpResponseRedirect(words.page_of(waiting))


def _decided(caller: Caller, waiting: Release, said: dict[str, Any]) -> Release:
    actor, reason = actor_of(caller), said["reason"]
    if said["decision"] == REJECT:  # whatever is live by now, it stays so
        return releases.reject(waiting, actor=actor, person_id=caller.user_id, reason=reason)
    return releases.approve(
        waiting,
        actor=actor,
        person_id=caller.user_id,
        reason=reason,
        expected_release=said["expected_release"],
    )


# --- what several pages show --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """One arm of a share bar."""

    version: int
    share: float
    role: str
    colour: str
    url: str

    @property
    def width(self) -> str:
        """The share as CSS wants it, whatever the reader's language writes for a point."""
        return f"{100 * self.share:.4f}%"


def thing_of(endpoint: Endpoint) -> Thing:
    """Return an endpoint as permissions know it."""
    return Thing(endpoint.model.team_id, endpoint.model.name, endpoint.environment)


def bars_of(arms: tuple[Arm, ...], pages: dict[int, str]) -> list[Bar]:
    """Return the arms as a share bar draws them; ``pages`` leads from version to its page."""
    return [
        Bar(
            arm.version,
            round(arm.share, DIGITS),
            arm.role.value,
            colour_of(arm.version),
            pages.get(arm.version, ""),
        )
        for arm in arms
    ]


def version_pages(model_id: int, numbers: set[int]) -> dict[int, str]:
    """Return the pages of some versions of a model, in one query."""
    rows = ModelVersion.objects.filter(model_id=model_id, number__in=numbers).only("pk", "number")
    return {one.number: words.page_of(one) for one in rows}


def preview_words(found: Preview) -> dict[str, Any]:
    """What the preview's template shows."""
    numbers = {arm.version for arm in (*found.before, *found.after)}
    pages = version_pages(found.endpoint.model_id, numbers)
    return {
        "endpoint": found.endpoint,
        "live": found.live,
        "before": bars_of(found.before, pages),
        "after": bars_of(found.after, pages),
        "moves": moves_words(found.move, serves=bool(found.before)),
        "moves_traffic": bool(found.before) and found.move.share > 0,
        "checks": found.checks,
        "blocking": [one.sentence for one in found.blocking],
        "waits": found.waits,
        "expected_release": found.live.number if found.live else 0,
    }


def moves_words(move: Move, *, serves: bool) -> str:
    """Say how much traffic moves from where to where."""
    if not serves:
        return f"Nothing serves here now; {versions_words(move.gaining)} starts to answer."
    if not move.share:
        return "The shares stay as they are."
    share = words.percent_words(min(1.0, round(move.share, DIGITS)))
    losing, gaining = versions_words(move.losing), versions_words(move.gaining)
    return f"Moves {share} of the traffic from {losing} to {gaining}."


def arms_words(arms: tuple[Arm, ...]) -> str:
    """Say arms in one line: *version 3*, or *version 3 (90 %), version 4 (10 %)*."""
    if len(arms) == 1:
        return f"version {arms[0].version}"
    return ", ".join(_arm_words(arm) for arm in arms)


def _arm_words(arm: Arm) -> str:
    role = ", shadow" if arm.role is ArmRole.SHADOW else ""
    return f"version {arm.version} ({words.percent_words(round(arm.share, DIGITS))}{role})"
