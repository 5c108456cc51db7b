"""The aliases of a model: a part of its settings that is set, moved and removed in place."""

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from apps.accounts.admin.door import caller_of_request
from apps.accounts.policies import Action, Thing, may
from apps.accounts.selectors import actor_of
from apps.core.errors import PlatformError
from apps.registry import selectors
from apps.registry.models import RegisteredModel
from apps.registry.models.version import NAME_LENGTH
from apps.registry.pages.door import check, model_of
from apps.registry.services import aliases

MOST_REASON = 2000
MOST_VERSIONS = 100
REMOVE = "remove"


class AliasForm(forms.Form):
    """A name, the version it points to, and why."""

    name = forms.CharField(
        max_length=NAME_LENGTH, error_messages={"required": "Name the alias, such as champion."}
    )
    version = forms.IntegerField(
        min_value=1,
        max_value=2**31 - 1,
        required=False,
        error_messages={"invalid": "Give the number of a version."},
    )
    reason = forms.CharField(max_length=MOST_REASON, required=False)
    act = forms.CharField(required=False)

    def clean(self) -> dict[str, Any]:
        said: dict[str, Any] = super().clean() or {}
        is_set = said.get("act") != REMOVE
        if is_set and said.get("version") is None and "version" not in self.errors:
            self.add_error("version", "Choose the version it points to.")
        return said


@never_cache
@require_http_methods(["GET", "POST"])
def model_aliases(request: HttpRequest, pk: int) -> HttpResponse:
    """Draw the aliases; a POST sets, moves or removes one and draws them anew."""
    model = model_of(request, pk)
    if request.method != "POST":
        return _drawn(request, model, AliasForm())
    check(request, Action.ALIAS_WRITE, model)
    form = AliasForm(request.POST)
    if not form.is_valid():
        return _drawn(request, model, form)
    try:
        done = _act(request, model, form.cleaned_data)
    except PlatformError as error:
        pointers = [one.pointer for one in getattr(error, "problems", ())]
        form.add_error("name" if "/alias" in pointers else "version", error.message)
        return _drawn(request, model, form)
    return _drawn(request, model, AliasForm(), done)


def _act(request: HttpRequest, model: RegisteredModel, said: dict[str, Any]) -> str:
    actor = actor_of(caller_of_request(request))
    name, reason = said["name"], said["reason"]
    if said["act"] == REMOVE:
        aliases.remove_alias(selectors.find_alias(model, name), actor=actor, reason=reason)
        return f"The alias {name} is removed."
    set_to = aliases.set_alias(model, name, version=said["version"], actor=actor, reason=reason)
    return f"The alias {name} points to version {set_to.version.number}."


def _drawn(
    request: HttpRequest, model: RegisteredModel, form: AliasForm, done: str = ""
) -> HttpResponse:
    thing = Thing(model.team_id, model.name)
    words = {
        "model": model,
        "aliases": selectors.aliases_of(model),
        "form": form,
        "done": done,
        "may_write": may(caller_of_request(request), Action.ALIAS_WRITE, thing),
        "versions": selectors.releasable_numbers(model)[:MOST_VERSIONS],
    }
    return render(request, "registry/aliases.html", words)
