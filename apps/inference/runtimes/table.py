"""Which class loads which format; imports nothing until asked."""

import importlib
from typing import cast

from apps.inference.engine.protocol import Runtime

RUNTIMES: dict[str, str] = {
    "onnx": "apps.inference.runtimes.onnx:OnnxRuntime",
    # Native files are never opened in the serving process, only by a confined child of it.
    "sklearn": "apps.inference.runtimes.runner:SklearnRunner",
    "torch": "apps.inference.runtimes.runner:TorchRunner",
}

INSIDE_THE_RUNNER: dict[str, str] = {
    "sklearn": "apps.inference.runtimes.sklearn:SklearnRuntime",
    "torch": "apps.inference.runtimes.torch:TorchRuntime",
}


def runtime_for(name: str) -> Runtime:
    """Make the runtime that serves this format in a serving process.

    Raises:
        KeyError: No runtime has this name.
    """
    return _make(RUNTIMES[name])


def runtime_inside_the_runner(name: str) -> Runtime:
    """Make the runtime that opens this native format, which only a confined child may do.

    Raises:
        KeyError: No runtime has this name.
    """
    return _make(INSIDE_THE_RUNNER[name])


def _make(path: str) -> Runtime:
    module, _, name = path.partition(":")
    return cast("Runtime", getattr(importlib.import_module(module), name)())
