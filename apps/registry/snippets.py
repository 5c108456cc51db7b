"""A request as a program a person can paste: curl, Python, JavaScript; plain Python.

Each text runs as it stands, with the key in the variable ``MLP_API_KEY``. The question inside is a
stranger's data, so each language gets it by that language's own quoting, never by gluing. Image
bytes that would fill the screen are read from a file that the text names.
"""

import json
import pprint
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

PRODUCTION = "production"
KEY_VARIABLE = "MLP_API_KEY"
# Base64 of at most this length stands in the text itself.
MOST_BASE64 = 4096
# One word of a command line may have 128 KiB; a longer question comes as standard input.
MOST_WORD = 60_000
WIDTH = 88
# How base64 of the image types we take begins.
IMAGE_HEADS = {"iVBOR": ".png", "/9j/": ".jpg"}
# What reads differently than it stands: control characters, direction marks, lone surrogates.
UNSEEN = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Snippet:
    """One program: the language as people call it, and its text."""

    name: str
    text: str
    language: str


@dataclass(frozen=True, slots=True)
class _Question:
    """A body whose large images have become marks, each for one file."""

    body: Any
    files: Mapping[str, str]


def predict_url(host: str, model: str, environment: str = PRODUCTION) -> str:
    """Return the address that predictions are asked at.

    Args:
        host: Scheme and host of the platform, as the reader reaches it.
        model: Name of the model.
        environment: Left out of the address when it is production, which is meant then.
    """
    query = "" if environment == PRODUCTION else "?" + urlencode({"environment": environment})
    return f"{host.rstrip('/')}/api/v1/predict/{quote(model, safe='')}{query}"


def snippets_for(
    *, host: str, model: str, environment: str = PRODUCTION, body: object
) -> tuple[Snippet, ...]:
    """Return one request in every language.

    Args:
        host: Scheme and host of the platform, as the reader reaches it.
        model: Name of the model.
        environment: Where it serves.
        body: The whole question, as JSON values: ``{"instances": [...]}``.
    """
    url = predict_url(host, model, environment)
    question = _with_marks(body)
    return (
        Snippet("curl", _curl(url, question), "bash"),
        Snippet("Python", _python(url, question), "python"),
        Snippet("JavaScript", _javascript(url, question), "javascript"),
    )


UPLOAD_CURL = """\
curl -sS {url} \\
  -H "X-API-Key: ${key}" \\
  -F name={model} \\
  -F 'metrics={{"accuracy": 0.97}}' \\
  -F file=@model.onnx"""

UPLOAD_PYTHON = """\
import json
import os

import requests

with open("model.onnx", "rb") as file:
    reply = requests.post(
        {url!r},
        headers={{"X-API-Key": os.environ[{key!r}]}},
        data={{"name": {model!r}, "metrics": json.dumps({{"accuracy": 0.97}})}},
        files={{"file": file}},
        timeout=600,
    )
print(reply.status_code, json.dumps(reply.json(), indent=2))"""


def upload_snippets(*, host: str, model: str) -> tuple[Snippet, ...]:
    """Return an upload of ``model.onnx`` as a program; the fields come before the file."""
    url = f"{host.rstrip('/')}/api/v1/models/upload"
    curl = UPLOAD_CURL.format(url=shlex.quote(url), key=KEY_VARIABLE, model=shlex.quote(model))
    python = UPLOAD_PYTHON.format(url=url, key=KEY_VARIABLE, model=model)
    return (Snippet("curl", curl, "bash"), Snippet("Python", python, "python"))


# -- images ------------------------------------------------------------------------------------


def _with_marks(body: object) -> _Question:
    """Put a mark where a large image stands; the mark occurs nowhere else in the question."""
    large = list(_large_images(body))
    if not large:
        return _Question(body, {})
    taken, mark = _json(body), "IMAGE_FILE"
    while mark in taken:
        mark += "_"
    names = _file_names(large)
    marks = {text: f"{mark}{at}{mark}" for at, text in enumerate(names)}
    files = {marks[text]: name for text, name in names.items()}
    return _Question(_replaced(body, marks), files)


def _large_images(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        text = value.get("b64")
        if isinstance(text, str) and len(text) > MOST_BASE64:
            yield text
        for one in value.values():
            yield from _large_images(one)
    elif isinstance(value, list):
        for one in value:
            yield from _large_images(one)


def _file_names(images: list[str]) -> dict[str, str]:
    """Name a file for each different image."""
    different = list(dict.fromkeys(images))
    alone = len(different) == 1
    return {
        text: f"image{'' if alone else f'-{at}'}{_ending(text)}"
        for at, text in enumerate(different, start=1)
    }


def _ending(text: str) -> str:
    endings = (ending for head, ending in IMAGE_HEADS.items() if text.startswith(head))
    return next(endings, ".bin")


def _replaced(value: Any, marks: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {
            name: marks[one]
            if name == "b64" and isinstance(one, str) and one in marks
            else _replaced(one, marks)
            for name, one in value.items()
        }
    return [_replaced(one, marks) for one in value] if isinstance(value, list) else value


# -- languages ---------------------------------------------------------------------------------


def _json(value: object, *, indent: int | None = None) -> str:
    """Write JSON that shows what it holds: readable letters as they are, unseen ones escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _curl(url: str, question: _Question) -> str:
    head = [
        f"curl -sS {shlex.quote(url)}",
        f'-H "X-API-Key: ${KEY_VARIABLE}"',
        "-H 'Content-Type: application/json'",
    ]
    text = _json(question.body)
    if question.files:
        return _joined(*head, "--data-binary @- <<JSON") + f"\n{_here(text, question.files)}\nJSON"
    if len(text) > MOST_WORD:
        return _joined(*head, "--data-binary @- <<'JSON'") + f"\n{text}\nJSON"
    return _joined(*head, f"-d {shlex.quote(text)}")


def _joined(*words: str) -> str:
    return " \\\n  ".join(words)


def _here(text: str, files: Mapping[str, str]) -> str:
    """Write what the shell reads with its own commands in it: all else is kept from it."""
    kept = re.sub(r"([\\$`])", r"\\\1", text)
    for mark, name in files.items():
        kept = kept.replace(mark, f"$(base64 < {shlex.quote(name)} | tr -d '\\n')")
    return kept


PYTHON = """\
{imports}

body = {body}
request = urllib.request.Request(
    {url!r},
    data=json.dumps(body).encode(),
    headers={{
        "X-API-Key": os.environ[{key!r}],
        "Content-Type": "application/json",
    }},
)
try:
    with urllib.request.urlopen(request, timeout=30) as reply:
        print(json.dumps(json.load(reply), indent=2))
except urllib.error.HTTPError as error:
    sys.exit(error.read().decode())"""


def _python(url: str, question: _Question) -> str:
    names = ["json", "os", "sys", "urllib.error", "urllib.request"]
    body = pprint.pformat(question.body, width=WIDTH, sort_dicts=False, compact=True)
    for mark, name in question.files.items():
        read = f"base64.b64encode(pathlib.Path({name!r}).read_bytes()).decode()"
        body = body.replace(repr(mark), read)
    if question.files:
        names = sorted([*names, "base64", "pathlib"])
    imports = "\n".join(f"import {name}" for name in names)
    return PYTHON.format(imports=imports, body=body, url=url, key=KEY_VARIABLE)


JAVASCRIPT = """\
(async () => {{
  const key = globalThis.process?.env.{key} ?? globalThis.prompt?.("API key");
{files}  const reply = await fetch({url}, {{
    method: "POST",
    headers: {{ "X-API-Key": key, "Content-Type": "application/json" }},
    body: JSON.stringify({body}),
  }});
  if (!reply.ok) throw new Error(await reply.text());
  console.log(JSON.stringify(await reply.json(), null, 2));
}})();"""


def _javascript(url: str, question: _Question) -> str:
    body, files = _json(question.body), ""
    if question.files:
        files = '  const { readFileSync } = await import("node:fs");\n'
    for mark, name in question.files.items():
        body = body.replace(_json(mark), f'readFileSync({_json(name)}).toString("base64")')
    return JAVASCRIPT.format(key=KEY_VARIABLE, files=files, url=_json(url), body=body)
