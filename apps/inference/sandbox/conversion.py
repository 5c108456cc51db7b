"""What the stages that convert have in common: their files, their refusal, a first look.

Both have opened a hostile file by then, so nothing here decides: the graph goes through all checks
of an uploaded one, and its answers are computed again in another process.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apps.core.errors import PlatformError
from apps.inference.runtimes.onnx import OnnxRuntime
from apps.inference.sandbox.report import Refused, clean
from apps.inference.sandbox.trial import run
from apps.inference.sandbox.verify_onnx import ARENA_BYTES, difference

OUTPUT_NAME = "model.onnx"
REFERENCE_NAME = "reference.frame"

Array = NDArray[np.generic]


class NotConvertible(Exception):
    """The converter cannot, or what it wrote does not answer alike; the message says which."""


def compare(rows: Mapping[str, Array], wanted: Mapping[str, Array], tolerance: float) -> None:
    """Run the graph that was just written and hold it against the original's answers.

    Args:
        rows: Arrays by input name.
        wanted: The original's answers by output name.
        tolerance: Absolute and relative.

    Raises:
        NotConvertible: It does not run, or its answers differ.
    """
    try:
        got = run(OnnxRuntime(ARENA_BYTES).load(Path(OUTPUT_NAME), threads=1), rows)
    except (PlatformError, Refused) as error:
        why = "; ".join(str(one) for one in (error, error.__cause__) if one is not None)
        raise NotConvertible(f"The converted graph does not run: {clean(why, 250)}") from error
    for name, array in wanted.items():
        if got[name].shape != array.shape:
            raise NotConvertible(f"Output {name} has another shape after conversion.")
        far, agrees = difference(got[name], array, tolerance)
        if not agrees:
            raise NotConvertible(
                f"Output {name} differs by up to {far:.3g} after conversion, "
                f"more than {tolerance:g}."
            )
