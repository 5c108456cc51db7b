"""The child of a runner: opens one native model behind the walls and answers over its pipes."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.inference.engine.errors import DeadlinePassed, ModelFailed
from apps.inference.engine.protocol import LoadedModel
from apps.inference.runtimes.frames import LENGTHS, BadFrame, Frame, decode, encode, lengths
from apps.inference.runtimes.table import runtime_inside_the_runner


def run(ask: Mapping[str, Any], unsafe: str) -> int:
    """Answer questions until the parent closes the pipe.

    Args:
        ask: The runtime, the file and the threads.
        unsafe: Why no model that may run code can be opened here, or an empty text.
    """
    threads = int(ask["threads"])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    questions, answers = _own_pipes()
    if unsafe:
        _write(answers, Frame({"ready": False, "message": unsafe}))
        return 0
    try:
        runtime = runtime_inside_the_runner(str(ask["runtime"]))
        model = runtime.load(Path(str(ask["file"])), threads=threads)
    except ModelFailed as error:
        _write(answers, Frame({"ready": False, "message": error.message}))
        return 0
    _write(answers, Frame({"ready": True}))
    while (question := _read(questions)) is not None:
        _write(answers, _answer(model, question))
    return 0


def _own_pipes() -> tuple[int, int]:
    """Keep the pipes to ourselves: a library that prints must not break the protocol."""
    questions, answers = os.dup(0), os.dup(1)
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return questions, answers


def _answer(model: LoadedModel, question: Frame) -> Frame:
    deadline = time.monotonic() + float(question.facts["seconds"])
    try:
        return Frame({}, model.predict(question.tensors, deadline=deadline))
    except DeadlinePassed:
        return Frame({"error": "deadline"})
    except ModelFailed as error:
        return Frame({"error": "failed", "message": f"{error.__cause__!r:.300}"})


def _read(handle: int) -> Frame | None:
    start = _take(handle, LENGTHS.size)
    if start is None:
        return None
    head, body = lengths(start)
    first, rest = _take(handle, head), _take(handle, body)
    if first is None or rest is None:
        return None
    return decode(first, rest)


def _take(handle: int, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = os.read(handle, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(handle: int, frame: Frame) -> None:
    try:
        data = memoryview(encode(frame))
    except BadFrame as error:
        data = memoryview(encode(Frame({"error": "failed", "message": str(error)})))
    while data:
        data = data[os.write(handle, data) :]
