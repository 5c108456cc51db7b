"""Try it: the form of a version, its answer on the page, and where it is answered."""

import hashlib
import json
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import jwt
import pytest
from django.test import Client
from PIL import Image
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from apps.accounts import wiring as limits_wiring
from apps.accounts.counters.memory import MemoryCounters
from apps.accounts.limits import Limiter
from apps.accounts.models import Plan, Team, User
from apps.accounts.snapshot import Role
from apps.core import storage
from apps.inference import traffic, windows, wiring
from apps.inference.engine.routing import TRY_ARM
from apps.inference.models import Prediction
from apps.inference.pages import tries
from apps.registry.models import ModelVersion
from tests.factories.accounts import make_member, make_team, make_user
from tests.factories.registry import make_model, make_release, make_upload, make_version
from tests.factories.serving import ServingNode
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.django_db


@pytest.fixture
def team() -> Team:
    return make_team("blue")


@pytest.fixture
def version(team: Team) -> ModelVersion:
    return make_version(make_model("tiny", team=team))


@pytest.fixture(autouse=True)
def _own_pool(settings: Any, tmp_path: Path) -> Iterator[None]:
    """A web role without agent and serving role."""
    settings.DATA_DIR = tmp_path
    settings.SERVES = False
    settings.SERVING_URL = ""
    wiring.reset()
    yield
    wiring.reset()


def signed_in(client: Client, team: Team | None, role: Role = Role.CONTRIBUTOR) -> User:
    user = make_member(team, role) if team else make_user()
    User.objects.filter(pk=user.pk).update(is_staff=True)
    user.refresh_from_db()
    client.force_login(user)
    return user


def address(version: ModelVersion) -> str:
    return f"/admin/inference-pages/try/{version.model.name}/{version.number}/"


def test_the_form_is_filled_in_with_the_example(
    client: Client, team: Team, version: ModelVersion
) -> None:
    signed_in(client, team)
    page = client.get(address(version)).content.decode()
    assert 'value="1, 2, 3, 4"' in page
    assert "float32, 4 numbers, by comma" in page
    assert "Try version 1" in page


def test_a_version_that_is_not_released_is_tried_recorded_and_no_traffic(
    client: Client, team: Team, version: ModelVersion
) -> None:
    user = signed_in(client, team)
    page = client.post(address(version), {"mode": "form", "f0": "1, 2, 3, 4.5"}).content.decode()
    assert "10.5" in page
    assert "Loading the model" in page
    one = Prediction.objects.get()
    assert f"/admin/inference/prediction/{one.pk}/change/" in page
    assert (one.source, one.arm, one.status, one.user_id) == ("try", TRY_ARM, "ok", user.pk)
    assert (one.environment, one.team_id, one.outputs) == ("development", team.pk, {"y": [[10.5]]})
    assert "Programs reach what is released." in page
    seen = traffic.look(traffic.Scope(), windows.named("day", now=one.ts))
    assert seen.total.count == 0


def test_the_second_try_finds_the_model_in_memory(
    client: Client, team: Team, version: ModelVersion
) -> None:
    signed_in(client, team)
    for expected in (True, False):
        page = client.post(address(version), {"mode": "form", "f0": "1,1,1,1"}).content.decode()
        assert ("Loading the model" in page) is expected


def test_a_live_version_is_tried_where_it_serves_and_its_snippets_call_it_there(
    client: Client, team: Team, version: ModelVersion
) -> None:
    signed_in(client, team)
    make_release(version)
    page = client.post(address(version), {"mode": "form", "f0": "1,1,1,1"}).content.decode()
    assert Prediction.objects.get().environment == "production"
    for language in ("curl", "Python", "JavaScript"):
        assert f"This question as {language}" in page
    assert "/api/v1/predict/tiny" in page
    assert "Programs reach what is released." not in page


def test_several_rows_are_asked_as_json_and_answered_as_a_table(
    client: Client, team: Team, version: ModelVersion
) -> None:
    signed_in(client, team)
    body = json.dumps({"instances": [[1, 1, 1, 1], [2, 2, 2, 2]]})
    page = client.post(address(version), {"mode": "json", "body": body}).content.decode()
    assert '<td data-label="y">4</td>' in page
    assert '<td data-label="y">8</td>' in page


def test_what_the_engine_refuses_is_said_at_its_field_and_recorded(
    client: Client, team: Team, version: ModelVersion
) -> None:
    signed_in(client, team)
    page = client.post(address(version), {"mode": "form", "f0": "1, 2"}).content.decode()
    assert "Fill in the marked fields." in page
    error = page.split('id="try-f0-error" hx-swap-oob="true">')[1].split("</p>")[0]
    assert "4" in error
    assert Prediction.objects.get().status == "signature_mismatch"


def test_what_cannot_be_read_is_not_asked_at_all(
    client: Client, team: Team, version: ModelVersion
) -> None:
    signed_in(client, team)
    page = client.post(address(version), {"mode": "form", "f0": "one"}).content.decode()
    assert "Write numbers by comma" in page
    page = client.post(address(version), {"mode": "json", "body": "{"}).content.decode()
    assert "mp-bad" in page
    assert Prediction.objects.count() == 0


@pytest.mark.parametrize("typed", ["1, 2, 3, 1" + "0" * 30, '["\\ud800", 1, 1, 1]'])
@pytest.mark.parametrize("show", ["", "json"])
def test_what_json_of_the_api_cannot_hold_is_said_at_its_field(
    client: Client, team: Team, version: ModelVersion, typed: str, show: str
) -> None:
    signed_in(client, team)
    reply = client.post(address(version), {"mode": "form", "show": show, "f0": typed})
    assert reply.status_code == 200
    page = reply.content.decode()
    assert ("Write numbers by comma" in page) is not bool(show)
    assert Prediction.objects.count() == 0


def test_a_question_that_fills_the_screen_is_answered_without_programs(
    client: Client, team: Team, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tries, "MOST_SHOWN", 40)
    signed_in(client, team)
    short, long = ({"instances": [[1, 1, 1, 1]] * rows} for rows in (1, 20))
    page = client.post(address(version), {"mode": "json", "body": json.dumps(short)})
    assert "This question as curl" in page.content.decode()
    page = client.post(address(version), {"mode": "json", "body": json.dumps(long)})
    assert "This question as curl" not in page.content.decode()
    assert "too long to be shown as a program" in page.content.decode()
    assert "Answer as JSON" in page.content.decode()


def test_the_forms_values_become_the_json_on_request(
    client: Client, team: Team, version: ModelVersion
) -> None:
    signed_in(client, team)
    page = client.post(address(version), {"mode": "form", "show": "json", "f0": "7,8,9,10"})
    assert "<textarea" in page.content.decode()
    assert "7," in page.content.decode()
    assert Prediction.objects.count() == 0


@pytest.mark.parametrize(
    ("who", "statuses"),
    [
        ("nobody", (302, 302)),
        ("stranger", (404, 404)),
        ("viewer", (200, 403)),
        ("contributor", (200, 200)),
    ],
)
def test_trying_needs_the_role_and_the_team(
    client: Client, team: Team, version: ModelVersion, who: str, statuses: tuple[int, int]
) -> None:
    if who == "stranger":
        signed_in(client, make_team("red"), Role.MAINTAINER)
    elif who != "nobody":
        signed_in(client, team, Role(who))
    get = client.get(address(version))
    post = client.post(address(version), {"mode": "form", "f0": "1,1,1,1"})
    assert (get.status_code, post.status_code) == statuses


def test_a_version_without_a_good_verdict_cannot_be_tried(client: Client, team: Team) -> None:
    signed_in(client, team)
    version = make_upload(make_model("raw", team=team))
    page = client.post(address(version), {"mode": "json", "body": "{}"}).content.decode()
    assert "This one is uploaded." in page
    assert Prediction.objects.count() == 0


def test_a_file_that_is_not_the_one_that_was_validated_is_not_opened(
    client: Client, team: Team, version: ModelVersion, settings: Any
) -> None:
    signed_in(client, team)
    ModelVersion.objects.filter(pk=version.pk).update(served_sha256="ab" * 32)
    page = client.post(address(version), {"mode": "form", "f0": "1,1,1,1"}).content.decode()
    assert "mp-bad" in page
    assert not list((Path(settings.DATA_DIR) / "trial" / "artifacts").iterdir())


def make_native(version: ModelVersion) -> LogisticRegression:
    """Let a version be one that a runner serves, because it did not convert."""
    features, labels = load_iris(return_X_y=True)
    flowers = LogisticRegression(max_iter=500).fit(features, labels)
    data = pickle.dumps(flowers)
    sha256 = hashlib.sha256(data).hexdigest()
    storage.put_bytes("native.pkl", data)
    outputs = [
        {"name": "label", "dtype": "int64", "shape": [-1]},
        {"name": "probabilities", "dtype": "float64", "shape": [-1, 3]},
    ]
    ModelVersion.objects.filter(pk=version.pk).update(
        runtime="sklearn",
        served_key="native.pkl",
        served_sha256=sha256,
        served_size=len(data),
        signature={
            "inputs": [{"name": "x", "dtype": "float64", "shape": [-1, 4]}],
            "outputs": outputs,
        },
    )
    return flowers


def test_a_version_that_a_runner_serves_is_tried_in_a_runner(
    client: Client, team: Team, version: ModelVersion
) -> None:
    signed_in(client, team)
    flowers = make_native(version)
    page = client.post(address(version), {"mode": "form", "f0": "5.1, 3.5, 1.4, 0.2"})
    best = flowers.predict_proba([[5.1, 3.5, 1.4, 0.2]])[0].max()
    assert f"{best * 100:.1f} %" in page.content.decode()
    assert Prediction.objects.get().status == "ok"


def test_a_native_version_is_refused_where_the_operator_forbids_runners(
    client: Client, team: Team, version: ModelVersion, settings: Any
) -> None:
    settings.NATIVE_FORMATS = frozenset()
    signed_in(client, team)
    make_native(version)
    page = client.post(address(version), {"mode": "form", "f0": "5.1, 3.5, 1.4, 0.2"})
    assert "MLP_NATIVE_FORMATS" in page.content.decode()


# --- where this process serves itself -----------------------------------------------------------


def test_where_this_process_serves_its_own_engine_answers(
    client: Client, team: Team, version: ModelVersion, node: ServingNode, settings: Any
) -> None:
    settings.SERVES = True
    signed_in(client, team)
    post = {"mode": "json", "body": json.dumps({"instances": [[1, 2, 3, 4]]})}
    assert "on its way" in client.post(address(version), post).content.decode()
    node.version(1, model="tiny", shift=100.0)
    node.endpoint(None, model="tiny", team_id=team.pk)
    wiring.reset()
    page = client.post(address(version), post).content.decode()
    assert all(f">{words}<" in page for words in ("106", "107", "108"))
    (kept,) = node.records()
    assert (kept["source"], kept["team_id"]) == ("try", team.pk)
    assert Prediction.objects.count() == 0  # the agent ships it


# --- where another role serves ------------------------------------------------------------------


class ServingRole(BaseHTTPRequestHandler):
    """Answers what it was told to, and remembers what it was asked."""

    replies: list[tuple[int, dict[str, Any]]]
    asked: list[tuple[str, dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked.append((self.path, dict(self.headers), body))
        status, said = type(self).replies.pop(0)
        text = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def elsewhere(settings: Any) -> Iterator[type[ServingRole]]:
    ServingRole.replies, ServingRole.asked = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), ServingRole)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.SERVING_URL = f"http://127.0.0.1:{server.server_port}"
    yield ServingRole
    server.shutdown()
    server.server_close()


ANSWER = {
    "predictions": [[10.5]],
    "model": "tiny",
    "version": 1,
    "variant": None,
    "prediction_id": "01936500-0000-7000-8000-000000000000",
    "cached": False,
    "timing_ms": {"total": 1.5, "queue": 0.25, "inference": 0.5},
}
LOADING = {"code": "model_unavailable", "detail": "Its file is not on this node yet."}


def test_the_serving_role_is_asked_as_the_person_with_a_token_of_a_minute(
    client: Client, team: Team, version: ModelVersion, elsewhere: type[ServingRole]
) -> None:
    user = signed_in(client, team)
    elsewhere.replies = [(503, LOADING), (200, ANSWER)]
    page = client.post(address(version), {"mode": "form", "f0": "1,2,3,4.5"}).content.decode()
    assert "10.5" in page
    path, headers, body = elsewhere.asked[-1]
    assert path == "/api/v1/predict/tiny?environment=development&version=1"
    assert json.loads(body) == {"instances": [{"x": [1, 2, 3, 4.5]}]}
    assert headers["X-Prediction-Source"] == "try"
    claims = jwt.decode(
        headers["Authorization"].removeprefix("Bearer "), options={"verify_signature": False}
    )
    assert (claims["sub"], claims["exp"] - claims["iat"]) == (str(user.pk), 60)
    assert len(elsewhere.asked) == 2  # a model that is being loaded is asked again
    assert Prediction.objects.count() == 0


def test_a_refusal_of_the_serving_role_stands_at_its_field(
    client: Client, team: Team, version: ModelVersion, elsewhere: type[ServingRole]
) -> None:
    signed_in(client, team)
    problem = {"pointer": "/instances/0/x", "detail": "Row 0 wants 4 values."}
    elsewhere.replies = [
        (400, {"code": "signature_mismatch", "errors": [problem], "detail": "No."})
    ]
    page = client.post(address(version), {"mode": "form", "f0": "1,2"}).content.decode()
    assert 'id="try-f0-error" hx-swap-oob="true">Row 0 wants 4 values.' in page


def test_a_serving_role_that_does_not_answer_is_named_in_words(
    client: Client, team: Team, version: ModelVersion, settings: Any
) -> None:
    signed_in(client, team)
    settings.SERVING_URL = "http://127.0.0.1:9"
    page = client.post(address(version), {"mode": "form", "f0": "1,1,1,1"}).content.decode()
    assert "The serving role does not answer at present." in page


# --- images -------------------------------------------------------------------------------------


def test_an_image_is_uploaded_as_a_file_and_shown_before(
    client: Client, team: Team, version: ModelVersion, settings: Any
) -> None:
    signed_in(client, team)
    signature = {
        "inputs": [
            {
                "name": "x",
                "dtype": "float32",
                "shape": [-1, 1, 2, 2],
                "image": {"height": 2, "width": 2, "mode": "grey"},
            }
        ],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [-1, 1]}],
    }
    ModelVersion.objects.filter(pk=version.pk).update(
        signature=signature, example={"instances": [{"b64": "aGk="}]}
    )
    page = client.get(address(version)).content.decode()
    assert 'type="file" accept="image/png,image/jpeg"' in page
    assert 'data-picture="data:image/png;base64,aGk="' in page
    picture = BytesIO()
    Image.new("L", (2, 2), 255).save(picture, "PNG")
    picture.seek(0)
    picture.name = "white.png"
    reply = client.post(address(version), {"mode": "form", "show": "json", "f0": picture})
    assert "iVBOR" in reply.content.decode()
    picture.seek(0)
    reply = client.post(address(version), {"mode": "form", "show": "json", "f9": picture})
    assert "iVBOR" not in reply.content.decode(), "the form has no such field"
    settings.MAX_IMAGE_PREDICT_BYTES = 10
    picture.seek(0)
    reply = client.post(address(version), {"mode": "form", "f0": picture})
    error = reply.content.decode().split('id="try-f0-error" hx-swap-oob="true">')[1]
    assert error.startswith("The file is larger than 10 bytes. Choose a smaller image.")
    assert Prediction.objects.count() == 0


def test_tries_count_against_the_plan_of_who_tries(
    client: Client, team: Team, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Limiter(MemoryCounters(), clock=FakeClock(1_000_000.0))
    monkeypatch.setattr(limits_wiring, "_limiter", made)
    user = signed_in(client, team)
    Plan.objects.create(name="small", title="Small", rows_per_minute=2, rows_per_call=2)
    User.objects.filter(pk=user.pk).update(plan="small")

    def rows(count: int) -> str:
        body = json.dumps({"instances": [[1, 1, 1, 1]] * count})
        return client.post(address(version), {"mode": "json", "body": body}).content.decode()

    assert "one call may carry 2" in rows(3)
    rows(2)
    assert Prediction.objects.filter(status="ok").count() == 1
    assert "The plan small allows 2 predictions a minute; none is left" in rows(1)
    assert Prediction.objects.filter(status="ok").count() == 1
