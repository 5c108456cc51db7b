"""Images through the door: both forms, a file as the body, limits, and what is recorded."""

import hashlib
from typing import Any

import orjson
import pytest

from apps.core import context
from apps.inference import wiring
from apps.inference.api import door
from apps.inference.api.door import DoorReply, DoorRequest
from apps.inference.engine.image_files import MAX_IMAGE_BYTES
from apps.registry.image_spec import JPEG, PNG, ColourMode, ImageSpec
from apps.registry.snapshot import Arm, ArmRole, Redaction
from tests.factories.images import (
    GREY_2X2,
    b64,
    file_of,
    image_onnx,
    image_scores,
    image_signature,
    noise,
)
from tests.factories.serving import ServingNode, answering, ask, primary

PIXELS = noise(2, 2)
FILE = file_of(PIXELS)
MB = 1024**2


def image_model(node: ServingNode, image: ImageSpec = GREY_2X2, **settings: Any) -> str:
    """Write one released image model, a person and a key; return the key."""
    node.version(1, model="digits", signature=image_signature(image), data=image_onnx())
    node.endpoint(answering(primary(1)), model="digits", **settings)
    node.person()
    return node.key()


def call(
    key: str, body: bytes, kind: str = "application/json", *, model: str = "digits", **headers: str
) -> DoorReply:
    context.begin("request-1", None)
    given = {"content-type": kind, "x-api-key": key, **headers}
    return door.answer(DoorRequest("POST", f"/api/v1/predict/{model}", "", given, body))


def said(reply: DoorReply) -> Any:
    assert reply.status == 200, reply.body
    return orjson.loads(reply.body)["predictions"]


def problem(reply: DoorReply) -> tuple[int, str, list[str]]:
    body = orjson.loads(reply.body)
    return reply.status, body["code"], [one["pointer"] for one in body.get("errors", [])]


def test_an_image_is_answered_by_class_in_every_form(node: ServingNode) -> None:
    key = image_model(node)
    scores = image_scores(PIXELS)
    forms = [
        call(key, ask([{"image": b64(FILE)}])),
        call(key, ask([b64(FILE, content_type=PNG)])),
        call(key, FILE, PNG),
        call(key, FILE, "Image/PNG; x=y"),
    ]
    for reply in forms:
        (answer,) = said(reply)
        assert answer["class"] == "owl"
        assert answer["scores"] == {
            "cat": pytest.approx(scores[0]),
            "dog": pytest.approx(scores[1]),
            "owl": pytest.approx(scores[2]),
        }
    columns = orjson.dumps({"inputs": {"image": [b64(FILE), b64(FILE)]}})
    assert [one["class"] for one in said(call(key, columns))["scores"]] == ["owl", "owl"]


def test_numbers_in_the_models_own_shape_give_the_same_answer(node: ServingNode) -> None:
    key = image_model(node)
    numbers = (PIXELS / 255).tolist()
    (by_numbers,) = said(call(key, ask([[numbers]])))
    (by_file,) = said(call(key, FILE, PNG))
    assert by_numbers["score"] == pytest.approx(by_file["score"])


def test_a_wrong_image_is_400_with_its_place(node: ServingNode) -> None:
    key = image_model(node)
    rows = [{"image": b64(FILE)}, {"image": b64(FILE[:-20])}]
    assert problem(call(key, ask(rows))) == (
        400,
        "signature_mismatch",
        ["/instances/1/image/b64"],
    )
    assert problem(call(key, FILE[:-20], PNG)) == (400, "signature_mismatch", [""])
    assert problem(call(key, b"", PNG))[0] == 400
    assert problem(call(key, FILE, JPEG)) == (400, "signature_mismatch", [""])


def test_a_file_as_body_is_415_for_a_model_of_numbers(node: ServingNode) -> None:
    key = node.wine()
    assert problem(call(key, FILE, PNG, model="wine"))[:2] == (415, "unsupported_media_type")
    assert not node.records()


@pytest.mark.parametrize("kind", ["image/gif", "image/*", "application/octet-stream", "text/plain"])
def test_another_kind_of_file_is_415_and_the_kinds_are_named(node: ServingNode, kind: str) -> None:
    reply = call(image_model(node), FILE, kind)
    assert problem(reply)[0] == 415
    assert PNG in orjson.loads(reply.body)["detail"]


def test_an_arm_that_takes_no_image_refuses_it_when_it_is_chosen(node: ServingNode) -> None:
    key = image_model(node)
    node.version(2, model="digits")
    arms = (primary(2), Arm(version=1, role=ArmRole.CANDIDATE, ranges=()))
    node.endpoint(answering(*arms, number=2), model="digits")
    wiring.reset()
    assert problem(call(key, FILE, PNG))[:2] == (415, "unsupported_media_type")
    digest = hashlib.sha256(FILE).hexdigest()
    assert node.records()[-1]["inputs"] == {"image": {"bytes": len(FILE), "sha256": digest}}


def test_a_body_of_14_megabytes_is_taken_for_images_and_of_10_for_others(node: ServingNode) -> None:
    key = image_model(node)
    node.version(1)
    node.endpoint(answering(primary(1)))
    padded = FILE + bytes(MAX_IMAGE_BYTES - len(FILE))
    body = ask([{"image": b64(padded)}])
    assert 13 * MB < len(body) < 14 * MB
    assert said(call(key, body))[0]["class"] == "owl"
    assert problem(call(key, body, model="wine"))[:2] == (413, "too_large")
    assert problem(call(key, b" " * (10 * MB + 1), model="wine"))[:2] == (413, "too_large")
    assert problem(call(key, b" " * (14 * MB + 1)))[:2] == (413, "too_large")


def test_a_file_as_body_has_10_megabytes(node: ServingNode) -> None:
    key = image_model(node)
    padded = FILE + bytes(MAX_IMAGE_BYTES - len(FILE))
    assert said(call(key, padded, PNG))
    assert problem(call(key, padded + b"x", PNG))[:2] == (413, "too_large")


def test_what_says_it_is_too_large_is_refused_before_anything_else(node: ServingNode) -> None:
    image_model(node)
    reply = call("no key", b"", **{"content-length": str(14 * MB + 1)})
    assert problem(reply)[:2] == (413, "too_large")


def test_the_record_says_what_an_image_was_and_never_holds_it(node: ServingNode) -> None:
    key = image_model(node)
    for reply in (call(key, ask([{"image": b64(FILE)}])), call(key, FILE, PNG)):
        assert reply.status == 200
    first, second = node.records()
    assert first["inputs"] == [{"image": second["inputs"][0]}]
    assert second["inputs"][0] | {"sha256": ""} == {
        "content_type": PNG,
        "size": len(FILE),
        "sha256": "",
        "width": 2,
        "height": 2,
    }
    assert (second["rows"], second["status"]) == (1, "ok")
    assert b64(FILE)["b64"] not in orjson.dumps([first, second]).decode()


def test_a_redacted_image_leaves_nothing_in_the_record(node: ServingNode) -> None:
    key = image_model(node, redact={"image": Redaction.DROP})
    assert call(key, FILE, PNG).status == 200
    assert call(key, FILE[:-20], PNG).status == 400
    good, bad = node.records()
    assert (good["inputs"], bad["inputs"]) == ({}, None)


def test_an_equal_image_is_answered_from_the_cache(node: ServingNode) -> None:
    key = image_model(node, cache_seconds=60)
    for cached in (False, True):
        assert orjson.loads(call(key, FILE, PNG).body)["cached"] is cached


def test_images_of_any_size_are_brought_to_the_models(node: ServingNode) -> None:
    key = image_model(node, ImageSpec(2, 2, ColourMode.GREY, max_pixels=100 * 100))
    assert said(call(key, file_of(noise(100, 100, 3), "JPEG"), JPEG))
    assert problem(call(key, file_of(noise(101, 100)), PNG))[0] == 400
