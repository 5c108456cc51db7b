"""The pages of erasures and of redacted fields: who sees them, what they show, what they leave."""

import pytest
from django.test import Client

from apps.accounts.models import Team
from apps.accounts.snapshot import Role
from apps.core.models import Event
from apps.inference import selectors
from apps.inference.admin import ErasureForm
from apps.inference.engine.redact import NOT_TOLD
from apps.inference.models import Erasure, Prediction
from apps.inference.record_keys import digests_of
from apps.inference.services import erasure
from apps.inference.veils import REDACTED
from apps.registry.models import RegisteredModel
from tests.factories.accounts import make_member, make_team, make_user
from tests.factories.inference import prediction
from tests.factories.registry import make_model, make_version

pytestmark = pytest.mark.django_db
ADD = "/admin/inference/erasure/add/"
UNIT = "patient-4711"


def member(username: str, team: Team, role: Role) -> Client:
    client = Client()
    user = make_member(team, role, username)
    type(user).objects.filter(pk=user.pk).update(is_staff=True)
    client.force_login(user)
    return client


@pytest.fixture
def blue() -> Team:
    return make_team("blue")


def hide(team: Team, **redact: str) -> None:
    model = make_model("wine", team=team)
    type(model).objects.filter(pk=model.pk).update(redact=redact)


def test_a_maintainer_erases_a_unit_of_the_own_team_and_sees_the_report(blue: Team) -> None:
    client = member("mara", blue, Role.MAINTAINER)
    prediction(unit=UNIT, team_id=blue.pk)
    reply = client.post(ADD, {"unit": UNIT, "team": str(blue.pk), "model": "", "reason": "asked"})
    asked = Erasure.objects.get()
    assert reply["Location"] == f"/admin/inference/erasure/{asked.pk}/change/"
    assert (asked.team_id, asked.actor_name) == (blue.pk, "mara")
    erasure.erase(asked.pk)
    page = client.get(reply["Location"]).content.decode()
    assert "1 record removed" in page
    assert UNIT not in page
    assert client.get("/admin/inference/erasure/").status_code == 200


def test_nobody_below_a_maintainer_erases(blue: Team) -> None:
    client = member("carl", blue, Role.CONTRIBUTOR)
    assert client.get(ADD).status_code == 403
    assert client.post(ADD, {"unit": UNIT, "reason": "x"}).status_code == 403
    assert not Erasure.objects.exists()


def test_a_maintainer_erases_in_no_other_team_and_sees_none_of_its_erasures(blue: Team) -> None:
    red = make_team("red")
    client = member("mara", blue, Role.MAINTAINER)
    client.post(ADD, {"unit": UNIT, "team": str(red.pk), "reason": "x"})
    client.post(ADD, {"unit": UNIT, "team": "", "reason": "x"})
    assert not Erasure.objects.exclude(team_id=blue.pk).exists()
    other = Erasure.objects.create(team_id=red.pk, before="2026-01-01T00:00Z", digests=["hmac:ab"])
    assert client.get(f"/admin/inference/erasure/{other.pk}/change/").status_code == 404


def test_what_one_may_choose_is_kept_nowhere_for_another_who_looks_meanwhile(blue: Team) -> None:
    mara, root = member("mara", blue, Role.MAINTAINER), Client()
    root.force_login(make_user("root", is_admin=True))
    assert ">All teams</option>" in root.get(ADD).content.decode()
    assert list(ErasureForm.base_fields["team"].choices) == []  # type: ignore[attr-defined]
    reply = mara.post(ADD, {"unit": UNIT, "team": "", "reason": "x"})
    assert (reply.status_code, Erasure.objects.count()) == (200, 0)
    assert "This field is required." in reply.content.decode()
    assert ">All teams</option>" not in reply.content.decode()


def test_a_platform_admin_erases_in_all_teams() -> None:
    client = Client()
    client.force_login(make_user("root", is_admin=True))
    client.post(ADD, {"unit": UNIT, "team": "", "reason": "asked"})
    assert Erasure.objects.get().team_id is None


def url_of(one: Prediction) -> str:
    return f"/admin/inference/prediction/{one.pk}/change/"


def test_a_redacted_field_is_shown_to_few_and_never_without_a_reason(blue: Team) -> None:
    hide(blue, age="hash", unit="hash", id="mask")
    kept = prediction(
        team_id=blue.pk,
        unit=digests_of(UNIT)[0],
        client_id="or***",
        inputs={"age": ["hmac:0123456789"], "sex": ["f"]},
    )
    viewer, mara = member("vera", blue, Role.VIEWER), member("mara", blue, Role.MAINTAINER)
    for client in (viewer, mara):
        page = client.get(url_of(kept)).content.decode()
        assert "hmac:" not in page
        assert "or***" not in page
        assert "redacted" in page
    asked = f"{url_of(kept)}?redacted=show&reason=a+complaint"
    assert "hmac:" not in viewer.get(asked).content.decode()
    assert "hmac:" not in mara.get(f"{url_of(kept)}?redacted=show").content.decode()
    assert not Event.objects.filter(verb="prediction.redacted_read").exists()
    assert "hmac:0123456789" in mara.get(asked).content.decode()
    event = Event.objects.get(verb="prediction.redacted_read")
    assert (event.actor_name, event.reason) == ("mara", "a complaint")
    assert event.facts["fields"] == ["age", "id", "unit"]
    assert event.target_id == str(kept.pk)


def test_a_hidden_unit_is_found_by_those_who_may_and_the_search_is_told(blue: Team) -> None:
    hide(blue, unit="hash")
    kept = prediction(team_id=blue.pk, unit=digests_of(UNIT)[0])
    listed = f"/admin/inference/prediction/?unit={UNIT}"
    viewer, mara = member("vera", blue, Role.VIEWER), member("mara", blue, Role.MAINTAINER)
    assert str(kept.pk) not in viewer.get(listed).content.decode()
    assert not Event.objects.filter(verb="prediction.unit_searched").exists()
    assert str(kept.pk) in mara.get(listed).content.decode()
    event = Event.objects.get(verb="prediction.unit_searched")
    assert UNIT not in repr(event.facts)


def test_a_plain_unit_is_found_by_everybody_of_the_team(blue: Team) -> None:
    make_model("wine", team=blue)
    kept = prediction(team_id=blue.pk, unit=UNIT)
    viewer = member("vera", blue, Role.VIEWER)
    page = viewer.get(f"/admin/inference/prediction/?unit={UNIT}").content.decode()
    assert str(kept.pk) in page
    assert UNIT in viewer.get(url_of(kept)).content.decode()


def test_an_error_from_before_the_rule_is_hidden_and_our_own_sentence_is_not(blue: Team) -> None:
    hide(blue, age="drop")
    make_version(RegisteredModel.objects.get())
    quoting, told = (
        prediction(team_id=blue.pk, status="model_failed", error=text)
        for text in ("could not convert Lovelace", NOT_TOLD)
    )
    viewer, mara = member("vera", blue, Role.VIEWER), member("mara", blue, Role.MAINTAINER)
    assert "Lovelace" not in viewer.get(url_of(quoting)).content.decode()
    assert "Lovelace" not in viewer.get(f"/api/v1/predictions/{quoting.pk}").content.decode()
    assert NOT_TOLD in viewer.get(url_of(told)).content.decode()
    kept = mara.get(f"{url_of(quoting)}?redacted=show&reason=a+bug").content.decode()
    assert "Lovelace" in kept


@pytest.mark.parametrize("has_version", [False, True])
def test_where_nobody_can_tell_what_a_vector_holds_all_of_it_is_hidden(
    blue: Team, has_version: bool
) -> None:
    hide(blue, age="drop")
    if has_version:  # its vector `x` has no names
        make_version(RegisteredModel.objects.get())
    found = prediction(
        team_id=blue.pk, version=1, inputs={"x": [[1.0, 31.0]]}, outputs={"y": [31.0]}
    )
    shown = selectors.veil_of(found).over(found)
    assert (shown.inputs, shown.outputs) == (REDACTED, REDACTED)
    page = member("vera", blue, Role.VIEWER).get(url_of(found))
    assert page.status_code == 200
    assert "31.0" not in page.content.decode()
