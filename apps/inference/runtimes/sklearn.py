"""scikit-learn as it is, for models that do not become ONNX; only inside a confined process.

The serving process never imports this file: ``runner`` starts a child that does.
"""

import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.inference.engine.errors import DeadlinePassed, ModelFailed
from apps.inference.engine.types import Tensors
from apps.inference.runtimes import sklearn_face
from apps.inference.runtimes.sklearn_load import Unloadable, open_estimator

# Native models compute in double precision; there is no reason to ask them in single.
NUMBER = "float64"


class SklearnRuntime:
    """Opens scikit-learn files by the list of names."""

    def load(self, files: Path, *, threads: int) -> "SklearnModel":
        """Open one file.

        Args:
            files: A pickle, joblib or skops file.
            threads: Threads for the numeric libraries inside one run.

        Returns:
            The loaded model.

        Raises:
            Unloadable: It holds something else than a fitted estimator made of listed names.
        """
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has none

        before = _resident_bytes()
        estimator = open_estimator(files).estimator
        threadpool_limits(limits=threads)
        face = sklearn_face.face_of(estimator, number=NUMBER)
        if face is None:
            raise Unloadable(
                f"The {type(estimator).__name__} does not say how many columns it wants.",
                "Save a fitted estimator that has n_features_in_.",
            )
        grown = _resident_bytes() - before
        return SklearnModel(estimator, face, max(grown, files.stat().st_size))


class SklearnModel:
    """One estimator in this process."""

    def __init__(self, estimator: Any, face: sklearn_face.Face, resident_bytes: int) -> None:
        """Take over a fitted estimator; ``resident_bytes`` is what opening it added."""
        self._estimator: Any = estimator
        self.face = face
        self._resident_bytes = resident_bytes

    @property
    def resident_bytes(self) -> int:
        """Memory the estimator added to the process when it was opened."""
        return self._resident_bytes

    @property
    def estimator(self) -> Any:
        """The estimator itself, for the stages that measure and convert it."""
        return self._estimator

    def predict(self, inputs: Tensors, *, deadline: float) -> Tensors:
        """Ask the estimator once.

        Args:
            inputs: Arrays by input name.
            deadline: ``time.monotonic()`` second; a run that has begun is not ended from inside,
                the runner ends the whole process.

        Returns:
            Arrays by output name.

        Raises:
            DeadlinePassed: There was no time left to begin with.
            ModelFailed: The estimator raised on this input, or the model is closed.
        """
        if self._estimator is None:
            raise ModelFailed("The model has been closed.")
        if time.monotonic() >= deadline:
            raise DeadlinePassed("The time was over before the model ran.")
        rows = {len(array) for array in inputs.values()}
        if rows == {0}:
            return {name: array[:0] for name, array in self._run(self._one_row()).items()}
        return self._run(inputs)

    def close(self) -> None:
        """Forget the estimator."""
        self._estimator = None

    def _one_row(self) -> dict[str, NDArray[np.generic]]:
        """A made-up row, to learn types and widths that an empty batch cannot show."""
        return sklearn_face.sample(self._estimator, self.face, 1)

    def _run(self, inputs: Tensors) -> dict[str, NDArray[np.generic]]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return sklearn_face.answers(self._estimator, self.face.ask(inputs))
        except MemoryError:
            raise
        except Exception as error:
            raise ModelFailed("The model raised an error on this input.") from error


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
