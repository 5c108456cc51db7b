"""The one small socket for every machine-learning library.

A runtime turns the files of one version into a loaded model; a loaded model turns tensors into
tensors. Nothing else about a library is known outside its own file in ``runtimes``.
"""

from pathlib import Path
from typing import Protocol

from apps.inference.engine.types import Tensors


class LoadedModel(Protocol):
    """One version in memory (or in a child process of its own)."""

    @property
    def resident_bytes(self) -> int:
        """Memory that leaves when the model is closed, as measured at load."""
        ...

    def predict(self, inputs: Tensors, *, deadline: float) -> Tensors:
        """Run the model once.

        Args:
            inputs: Arrays by input name; the first axis is the batch where the signature says -1.
            deadline: ``time.monotonic()`` second after which nobody wants the answer.

        Returns:
            Arrays by output name, in the order of the signature.

        Raises:
            DeadlinePassed: The run was ended at the deadline.
            ModelFailed: The model raised on this input.
        """
        ...

    def close(self) -> None:
        """Give the memory back. Calling it twice does no harm."""
        ...


class Runtime(Protocol):
    """Loads versions of one format."""

    def load(self, files: Path, *, threads: int) -> LoadedModel:
        """Load the served file of one version, whose digest the caller has checked.

        Args:
            files: The served file.
            threads: Threads the library may use inside one run.

        Raises:
            ModelFailed: The file cannot be loaded.
        """
        ...
