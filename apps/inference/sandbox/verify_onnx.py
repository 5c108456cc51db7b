"""Stage ``verify-onnx``: loads an ONNX file with ONNX Runtime alone, runs it, measures it.

For a converted model it also computes the answers again and compares them with those that the
original gave: the process that converted has opened a hostile file and is not believed.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.inference.engine.errors import ModelFailed
from apps.inference.engine.protocol import LoadedModel
from apps.inference.engine.types import Tensors
from apps.inference.runtimes.frames import Frame, decode_all
from apps.inference.runtimes.onnx import DTYPES, OnnxModel, OnnxRuntime
from apps.inference.sandbox.report import Refused, Report, clean
from apps.inference.sandbox.trial import (
    BATCH,
    Spec,
    row_count,
    rows_of_example,
    run,
    try_model,
    with_images,
)

ARENA_BYTES = 1 << 30
# Sizes to try for free inner axes: a short sequence, an image.
FREE_SIZES = (8, 1, 32, 224)


def run_stage(ask: Mapping[str, Any], report: Report) -> None:
    """Write signature, measurements, example and, with a reference, the comparison."""
    path = Path(ask["file"])
    started = time.perf_counter()
    with report.check("load", "ONNX Runtime loads the file") as noted:
        model = _load(path)
        took = time.perf_counter() - started
        noted.say(f"Loaded in {took:.2f} s.")
    inputs = with_images(_inputs(model, report), ask)
    reference = _reference(ask.get("reference"))
    rows = _rows(ask, report, model, inputs, reference)
    answer = try_model(model, report, inputs=inputs, rows=rows, load_seconds=took)
    if reference is not None:
        _compare(report, answer, reference, float(ask["tolerance"]))


def _load(path: Path) -> OnnxModel:
    try:
        arena_bytes = max(ARENA_BYTES, path.stat().st_size)
        return OnnxRuntime(arena_bytes).load(path, threads=1)
    except ModelFailed as error:
        raise Refused(
            f"ONNX Runtime does not load the file: {clean(error.__cause__, 400)}",
            "Export the model again with a current exporter and try onnx.checker on it.",
        ) from error


def _inputs(model: OnnxModel, report: Report) -> list[Spec]:
    with report.check("signature", "Inputs are tensors of known types") as noted:
        inputs = []
        for name, kind, shape in model.inputs:
            if kind not in DTYPES:
                raise Refused(
                    f"Input {clean(name, 80)} has the type {clean(kind, 80)}, which cannot be "
                    "sent in a request.",
                    "Export the model with tensors of numbers or texts as inputs.",
                )
            dtype = "string" if DTYPES[kind].kind == "O" else DTYPES[kind].name
            sizes = [size if isinstance(size, int) and size >= 0 else -1 for size in shape]
            inputs.append(Spec(name, dtype, sizes))
        noted.say(", ".join(f"{one.name}: {one.dtype}{one.shape}" for one in inputs))
    return inputs


def _reference(path: object) -> Frame | None:
    return decode_all(Path(str(path)).read_bytes()) if path else None


def _rows(
    ask: Mapping[str, Any],
    report: Report,
    model: OnnxModel,
    inputs: list[Spec],
    reference: Frame | None,
) -> Tensors:
    if reference is not None:
        rows = {one.name: reference.tensors.get(f"in:{one.name}") for one in inputs}
        if any(array is None for array in rows.values()):
            raise Refused("The converted model has other inputs than the original.")
        return {name: array for name, array in rows.items() if array is not None}
    if ask.get("example"):
        title = "The example fits the inputs"
        try:
            given = rows_of_example(str(ask["example"]), inputs)
        except Refused as error:
            report.warn("example", title, error.message, error.remedy)
        else:
            with report.check("example", title) as noted:
                noted.say(f"{row_count(given)} row(s).")
            return _repeat(given, inputs)
    return generated_rows(model, inputs)


def _repeat(rows: Tensors, inputs: list[Spec]) -> Tensors:
    """Make one row several, slightly different where they are numbers, to see them in a batch."""
    if row_count(rows) > 1 or any(one.shape[:1] != [-1] for one in inputs):
        return rows
    random = np.random.default_rng(7)
    out: dict[str, NDArray[np.generic]] = {}
    for name, array in rows.items():
        many = np.repeat(array, BATCH, axis=0)
        if many.dtype.kind == "f":
            noise = random.normal(1.0, 0.01, many.shape)
            noise[0] = 1.0
            many = np.multiply(many, noise, dtype=np.float64).astype(many.dtype)
        out[name] = many
    return out


def generated_rows(model: LoadedModel, inputs: Sequence[Spec]) -> Tensors:
    """Rows made up from types and shapes; free inner axes are tried in several sizes."""
    has_free = any(-1 in one.shape[1:] for one in inputs)
    failed: Refused | None = None
    for size in FREE_SIZES if has_free else FREE_SIZES[:1]:
        rows = {one.name: _made_up(one, size) for one in inputs}
        if not has_free:
            return rows
        try:
            run(model, rows)
        except Refused as error:
            failed = failed or error
        else:
            return rows
    assert failed is not None
    raise failed


def _made_up(spec: Spec, size: int) -> NDArray[np.generic]:
    random = np.random.default_rng(7)
    shape = [BATCH if at == 0 and n == -1 else size if n == -1 else n
             for at, n in enumerate(spec.shape)]  # fmt: skip
    if spec.image is not None:
        shape[1:] = spec.image.array_shape
    if spec.dtype == "string":
        return np.full(shape, "a", dtype=object)
    kind = np.dtype(spec.dtype)
    if kind.kind in "iub":
        # Small whole numbers: most of them are places in a table or categories.
        return random.integers(0, 2, shape).astype(kind)
    return random.normal(0.0, 1.0, shape).astype(kind)


def _compare(report: Report, answer: Tensors, reference: Frame, tolerance: float) -> None:
    """Write how far the answers are from those of the original."""
    worst, differing = 0.0, []
    for name, array in answer.items():
        wanted = reference.tensors.get(f"out:{name}")
        if wanted is None or wanted.shape != array.shape:
            differing.append(name)
            continue
        far, agrees = difference(array, wanted, tolerance)
        worst = max(worst, far)
        if not agrees:
            differing.append(name)
    missing = [n for n in reference.tensors if n.startswith("out:") and n[4:] not in answer]
    report.result["parity"] = {
        "max_abs_difference": worst if np.isfinite(worst) else None,
        "tolerance": tolerance,
        "rows": row_count(answer),
        "agrees": not differing and not missing,
        "differing": differing,
    }


def difference(
    got: NDArray[np.generic], wanted: NDArray[np.generic], tolerance: float
) -> tuple[float, bool]:
    """Largest absolute difference, and whether all lie within tolerance, absolute and relative."""
    if got.dtype.kind == "f" or wanted.dtype.kind == "f":
        a, b = got.astype(np.float64), wanted.astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            far = np.abs(a - b)
        both_nan = np.isnan(a) & np.isnan(b)
        # Relative to infinity everything would be near.
        near = np.isfinite(b) & (far <= tolerance + tolerance * np.abs(b))
        within = near | both_nan | (a == b)
        known = far[np.isfinite(far)]
        return (float(known.max()) if known.size else 0.0), bool(within.all())
    same = bool((got == wanted).all())
    return (0.0 if same else float("inf")), same
