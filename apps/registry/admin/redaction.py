"""The rules of redaction as a table: each field of the model with what is done to it."""

import json
from collections.abc import Mapping
from typing import Any

from django.forms import Widget
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from apps.core.errors import Invalid
from apps.registry.models import RegisteredModel
from apps.registry.signature import signature_from_json
from apps.registry.snapshot import Redaction

# Beside inputs and outputs: whom an experiment randomises, and the caller's own id.
ALWAYS = ("unit", "id")
HOW = {
    "": "kept as it is",
    Redaction.DROP.value: "drop: not recorded",
    Redaction.HASH.value: "hash: equal values stay equal",
    Redaction.MASK.value: "mask: two letters at most",
}
EMPTY_ROWS = 2
MOST_KNOWN = 60


class RedactionWidget(Widget):
    """Rows of a field's name and its rule; a name that is not known yet may be typed in."""

    known: tuple[str, ...] = ALWAYS

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        rules = _rules(value)
        names = dict.fromkeys((*self.known, *rules))
        rows = [(one, rules.get(one, ""), True) for one in names]
        rows += [("", "", False)] * EMPTY_ROWS
        context = {"name": name, "rows": rows, "choices": HOW.items()}
        return render_to_string("registry/redaction.html", context)

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
        if f"{name}-name" not in data:
            return data.get(name)
        fields = (one.strip() for one in data.getlist(f"{name}-name"))
        pairs = zip(fields, data.getlist(f"{name}-how"), strict=False)
        return json.dumps({field: how for field, how in pairs if field and how})

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return name not in data and f"{name}-name" not in data


def fields_of(model: RegisteredModel) -> tuple[str, ...]:
    """Return what a rule of a model may name, after its newest version that has a signature."""
    versions = model.versions.exclude(signature=None).order_by("-number")
    written = versions.values_list("signature", flat=True).first()
    try:
        signature = signature_from_json(written) if written else None
    except Invalid:  # written by another release of the platform
        signature = None
    specs = (*signature.inputs, *signature.outputs) if signature else ()
    names = [name for spec in specs for name in (spec.name, *spec.columns)]
    return (*dict.fromkeys((*ALWAYS, *names[:MOST_KNOWN])),)


def _rules(value: Any) -> dict[str, str]:
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return dict(found) if isinstance(found, Mapping) else {}
