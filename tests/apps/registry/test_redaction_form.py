"""The rules of redaction on the model's page."""

import json
from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client
from django.urls import reverse

from apps.registry.admin.model import ModelForm
from apps.registry.admin.redaction import RedactionWidget, fields_of
from apps.registry.models import RegisteredModel
from tests.factories.accounts import make_user
from tests.factories.registry import make_model, make_version

pytestmark = pytest.mark.django_db


@pytest.fixture
def model() -> RegisteredModel:
    return make_version(make_model("wine")).model


def posted(model: RegisteredModel, *pairs: tuple[str, str]) -> ModelForm:
    data = QueryDict(mutable=True)
    plain = {"record": "full", "full_spool": "required", "sample_share": "1", "cache_seconds": "0"}
    for name, value in {**plain, "deadline_seconds": "10"}.items():
        data[name] = value
    data.setlist("redact-name", [name for name, _ in pairs])
    data.setlist("redact-how", [how for _, how in pairs])
    form = ModelForm(data, instance=model)
    for name in ("name", "team", "description", "tags"):
        del form.fields[name]
    return form


def test_every_field_of_the_newest_version_is_offered_with_the_unit_and_the_id(
    model: RegisteredModel,
) -> None:
    names = fields_of(model)
    assert names[:2] == ("unit", "id")
    assert {"x", "y"} <= set(names)
    widget = RedactionWidget()
    widget.known = names
    drawn = widget.render("redact", json.dumps({"x": "hash", "former": "drop"}))
    assert 'value="hash" selected' in drawn
    assert "former" in drawn, "a rule of a field that the newest version lacks is still seen"


def test_rules_are_taken_from_the_rows_and_empty_ones_are_none(model: RegisteredModel) -> None:
    form = posted(model, ("unit", "hash"), ("x", ""), ("y", "mask"), ("", "drop"), (" z ", "drop"))
    assert form.is_valid(), form.errors
    assert form.cleaned_data["redact"] == {"unit": "hash", "y": "mask", "z": "drop"}


def test_all_rules_may_be_taken_away(model: RegisteredModel) -> None:
    model.redact = {"x": "hash"}
    form = posted(model, ("x", ""), ("", ""))
    assert form.is_valid(), form.errors
    assert form.cleaned_data["redact"] == {}
    assert "redact" in form.changed_data


@pytest.mark.parametrize("how", ["blur", "<script>"])
def test_a_rule_that_is_none_is_refused(model: RegisteredModel, how: str) -> None:
    form = posted(model, ("x", how))
    assert not form.is_valid()


def test_a_name_is_drawn_as_a_text(model: RegisteredModel) -> None:
    drawn: Any = RedactionWidget().render("redact", json.dumps({"<b>x</b>": "hash"}))
    assert "<b>" not in drawn


def test_the_settings_of_a_model_offer_its_fields(model: RegisteredModel) -> None:
    client = Client()
    client.force_login(make_user("root", is_admin=True))
    url = reverse("admin:registry_registeredmodel_change", args=[model.pk])
    page = client.get(url, {"tab": "settings"}).content.decode()
    assert '<input type="hidden" name="redact-name" value="x">' in page
    assert "What is done to x" in page
