"""Try it: a version's signature as a form, and its answer on the same page."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from apps.accounts.admin.door import caller_of_request
from apps.accounts.models import User
from apps.accounts.policies import Action, Thing, may
from apps.core import strict_json
from apps.core.errors import FieldProblem, PlatformError
from apps.core.words import size_words
from apps.inference.answers import drawn, stages_of
from apps.inference.pages.door import page, version_for
from apps.inference.pages.fields import Field, fields_of, question_from, with_problems
from apps.inference.pages.trying import Tried, environment_of, try_version
from apps.registry.models import ModelVersion
from apps.registry.selectors import environments_serving
from apps.registry.signature import Signature, signature_from_json
from apps.registry.snippets import PRODUCTION, Snippet, snippets_for

FORM, JSON = "form", "json"
# A body of many megabytes is not written out again on the page.
MOST_SHOWN = 200_000


@page
@require_http_methods(["GET", "POST"])
def version_try(request: HttpRequest, model: str, number: int) -> HttpResponse:
    """The form; sent in, the answer."""
    caller, version = version_for(request, model, number, Action.MODEL_READ)
    thing = Thing(version.model.team_id, version.model.name)
    allowed = may(caller, Action.PREDICT_TRY, thing)
    if request.method == "POST" and not allowed:
        raise PermissionDenied("Trying a version needs the role contributor.")
    if not allowed or not version.was_judged_good or version.signature is None:
        return render(request, "inference/no_try.html", {"version": version, "allowed": allowed})
    signature = signature_from_json(version.signature)
    fields = fields_of(signature, version.example or _report_example(version))
    if request.method == "POST":
        return _answered(request, version, signature, fields)
    context = {
        "version": version,
        "fields": fields,
        "question": _shown(_example(version, signature)),
        "takes_files": any(one.kind == "image" for one in fields),
        "here": request.path,
    }
    return render(request, "inference/try.html", context)


def _answered(
    request: HttpRequest, version: ModelVersion, signature: Signature, fields: tuple[Field, ...]
) -> HttpResponse:
    by_form = request.POST.get("mode", FORM) == FORM and bool(fields)
    context: dict[str, Any] = {"version": version, "fields": fields if by_form else ()}
    if by_form:
        images, too_large = _images(request, fields)
        question, fields = question_from(fields, request.POST.dict(), images)
        fields = tuple(replace(one, error=too_large.get(one.name, one.error)) for one in fields)
        if request.POST.get("show") == JSON:
            return render(request, "inference/question.html", {"question": _shown(question)})
        context["fields"] = fields
        if any(one.error for one in fields):
            context["message"] = "Fill in the marked fields."
            return render(request, "inference/answer.html", context)
        body = orjson.dumps(question)
    else:
        body = request.POST.get("body", "").encode()
    try:
        context |= _ask(request, version, signature, body)
    except PlatformError as error:
        context |= _refused(error, fields if by_form else ())
    return render(request, "inference/answer.html", context)


def _images(
    request: HttpRequest, fields: tuple[Field, ...]
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Read the files of the form's images; those that no question may hold stay on the disk."""
    images: dict[str, bytes] = {}
    too_large: dict[str, str] = {}
    for one in fields:
        file: Any = request.FILES.get(one.name)
        if file is None or one.kind != "image":
            continue
        if file.size > settings.MAX_IMAGE_PREDICT_BYTES:
            most = size_words(settings.MAX_IMAGE_PREDICT_BYTES)
            too_large[one.name] = f"The file is larger than {most}. Choose a smaller image."
        else:
            images[one.name] = file.read()
    return images, too_large


def _ask(
    request: HttpRequest, version: ModelVersion, signature: Signature, body: bytes
) -> dict[str, Any]:
    user = request.user
    assert isinstance(user, User)
    caller = caller_of_request(request)
    environment = environment_of(version)
    tried = try_version(version, environment=environment, body=body, caller=caller, user=user)
    is_live = environment in environments_serving(version)
    return _told(signature, tried) | {
        "is_live": is_live,
        "snippets": _snippets(request, version, signature, body, environment if is_live else ""),
    }


def _snippets(
    request: HttpRequest, version: ModelVersion, signature: Signature, body: bytes, serves_in: str
) -> tuple[Snippet, ...]:
    """Return the question as programs; none when writing them out would take many seconds."""
    takes_images = any(one.image for one in signature.inputs)  # large ones are files in a snippet
    if len(body) > MOST_SHOWN and not takes_images:
        return ()
    return snippets_for(
        host=f"{request.scheme}://{request.get_host()}",
        model=version.model.name,
        environment=serves_in or PRODUCTION,
        body=strict_json.loads(body),
    )


def _told(signature: Signature, tried: Tried) -> dict[str, Any]:
    said = tried.body
    timing = said["timing_ms"]
    single = signature.outputs[0].name if len(signature.outputs) == 1 else "answer"
    load_ms = None if tried.load_seconds is None else tried.load_seconds * 1000
    return {
        "answer": drawn(said["predictions"], single=single),
        "plain": _shown(said),
        "total_ms": timing["total"],
        "stages": stages_of(
            total_ms=timing["total"],
            queue_ms=timing["queue"],
            inference_ms=timing["inference"],
            load_ms=load_ms,
        ),
        "prediction_id": said["prediction_id"],
        "prediction_url": reverse(
            "admin:inference_prediction_change", args=[said["prediction_id"]]
        ),
    }


def _refused(error: PlatformError, fields: tuple[Field, ...]) -> dict[str, Any]:
    """Put what is wrong at its field; what belongs to none is said on top."""
    marked, others = with_problems(fields, _by_pointer(error.problems))
    placed = any(one.error for one in marked)
    message = "Fill in the marked fields." if placed and not others else error.message
    return {"fields": marked, "message": message, "others": others, "code": error.code}


def _by_pointer(problems: tuple[FieldProblem, ...]) -> Mapping[str, str]:
    return {one.pointer: one.detail for one in problems}


def _report_example(version: ModelVersion) -> Any:
    """The rows that validation asked with, when the uploader gave none."""
    return (version.report or {}).get("example")


def _example(version: ModelVersion, signature: Signature) -> Any:
    found = version.example or _report_example(version)
    if found is not None:
        return found
    return {"instances": [{spec.name: None for spec in signature.inputs}]}


def _shown(value: Any) -> str:
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return text if len(text) <= MOST_SHOWN else orjson.dumps(value).decode()
