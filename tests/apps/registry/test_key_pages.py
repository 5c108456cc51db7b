"""What pages of keys and teams show of models: own teams only, and a request that works."""

import pytest
from django.test import Client

from apps.accounts.models import Team, User
from apps.accounts.snapshot import Role
from apps.registry.models import ModelVersion
from tests.factories.accounts import make_key, make_member, make_team
from tests.factories.registry import make_model, make_release, make_version

pytestmark = pytest.mark.django_db
PAGES = "/admin/registry-pages"


@pytest.fixture
def team() -> Team:
    return make_team("blue")


def page(user: User) -> Client:
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    return client


def test_the_names_of_a_teams_models_are_offered_to_its_members(team: Team) -> None:
    make_model("wine", team=team)
    path = f"{PAGES}/teams/{team.pk}/model-names/"
    for role in Role:
        shown = page(make_member(team, role)).get(path).content.decode()
        assert 'data-model-name="wine"' in shown
    stranger = make_member(make_team("red"), Role.MAINTAINER)
    assert page(stranger).get(path).status_code == 404
    assert Client().get(path).status_code == 302


def test_the_curl_of_a_key_asks_a_model_that_serves_where_the_key_reaches(team: Team) -> None:
    ada = make_member(team, Role.MAINTAINER, "ada")
    for name in ("iris", "wine"):
        make_release(make_version(make_model(name, team=team)))
    ModelVersion.objects.update(example={"instances": [[1, 2, 3, 4]]})
    key, _ = make_key(team, ada, models=("wine",))
    shown = page(ada).get(f"{PAGES}/keys/{key.pk}/curl/").content.decode()
    assert "/api/v1/predict/wine" in shown
    assert "$MLP_API_KEY" in shown
    elsewhere, _ = make_key(team, ada, environments=("staging",))
    shown = page(ada).get(f"{PAGES}/keys/{elsewhere.pk}/curl/").content.decode()
    assert "serves in staging yet" in shown


def test_the_curl_of_a_key_is_for_those_who_see_the_key(team: Team) -> None:
    key, _ = make_key(team, make_member(team, Role.CONTRIBUTOR))
    path = f"{PAGES}/keys/{key.pk}/curl/"
    assert page(make_member(team, Role.MAINTAINER)).get(path).status_code == 200
    assert page(make_member(team, Role.VIEWER)).get(path).status_code == 404
    assert page(make_member(make_team("red"), Role.MAINTAINER)).get(path).status_code == 404
    assert Client().get(path).status_code == 302


def test_models_are_counted_for_ones_own_teams_only(team: Team) -> None:
    red = make_team("red")
    make_model(team=team)
    make_model(team=red)
    asked = f"{PAGES}/teams/counts/?ids={team.pk},{red.pk},x,99999999999999999999"
    shown = page(make_member(team, Role.VIEWER)).get(asked).content.decode()
    assert f'id="cell-team-models-{team.pk}" hx-swap-oob="true">1<' in shown
    assert f"cell-team-models-{red.pk}" not in shown
