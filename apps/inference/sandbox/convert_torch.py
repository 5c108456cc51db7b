"""Stage ``convert-torch``: opens a PyTorch program and writes it as ONNX, with its answers.

What it leaves behind comes from a process that has opened a hostile file: the graph goes through
all checks of an uploaded one, and the answers are computed again elsewhere.
"""

import contextlib
import io
import platform
import re
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from apps.inference.engine.types import Tensors
from apps.inference.runtimes.frames import BadFrame, Frame, encode
from apps.inference.runtimes.torch import TorchModel, TorchRuntime
from apps.inference.runtimes.torch_load import Opened, Unloadable
from apps.inference.sandbox.conversion import (
    OUTPUT_NAME,
    REFERENCE_NAME,
    NotConvertible,
    compare,
)
from apps.inference.sandbox.report import Refused, Report, clean
from apps.inference.sandbox.torch_case import Case, find_case
from apps.inference.sandbox.trial import row_count, run
from apps.registry.formats import Container

# Old enough for every runtime in use, new enough for both exporters.
OPSET = 18
FEW = 4
Array = NDArray[np.generic]


def run_stage(ask: Mapping[str, Any], report: Report) -> None:
    """Write the graph and the reference, or say why there is none."""
    model, _ = open_model(Path(ask["file"]), report)
    report.result["metadata"] = metadata_of(model.opened)
    report.result["conversion"] = None
    case = find_case(model, ask, report)
    with report.check("original", "PyTorch answers the trial rows") as noted:
        wanted = run(model, case.rows)
        noted.say(f"{row_count(case.rows)} row(s).")
    try:
        _convert(model.opened, case, wanted, float(ask["tolerance"]), report)
    except NotConvertible as error:
        report.result["not_convertible"] = clean(error, 500)


def open_model(path: Path, report: Report) -> tuple[TorchModel, float]:
    """Open the file as its runner would; returns the model and the seconds it took."""
    started = time.perf_counter()
    with report.check("open", "PyTorch opens the program") as noted:
        try:
            model = TorchRuntime().load(path, threads=1)
        except Unloadable as error:
            raise Refused(error.message, error.remedy) from error
        took = time.perf_counter() - started
        noted.say(f"{_kind(model.opened)}, opened in {took:.2f} s.")
    _note_version(model.opened, report)
    _note_training(model.opened, report)
    return model, took


def _kind(opened: Opened) -> str:
    if opened.container is Container.PT2:
        return "An exported program"
    return f"TorchScript of {clean(opened.program.original_name, 80)}"


def _note_version(opened: Opened, report: Report) -> None:
    import torch

    made, here = opened.made_with.partition("+")[0], torch.__version__.partition("+")[0]
    if made and made != here:
        report.warn(
            "versions",
            "It was saved with the PyTorch installed here",
            f"It was written by PyTorch {clean(made, 20)}; {here} is installed here.",
            f"If its answers differ, save it again with PyTorch {here}.",
        )


def _note_training(opened: Opened, report: Report) -> None:
    """Exporting a module in training mode freezes its dropout and its batch statistics in."""
    if opened.container is not Container.PT2:
        return
    trained = {
        str(node.target)
        for node in opened.program.graph.nodes
        if re.match(r"aten\.(dropout|batch_norm|native_batch_norm)\.", str(node.target))
        and True in node.args
    }
    if trained:
        report.warn(
            "mode",
            "It was exported for answering, not for training",
            f"It still has {', '.join(sorted(trained))} in training mode: answers are random or "
            "depend on the rows beside them.",
            "Call model.eval() before torch.export.export.",
        )


def metadata_of(opened: Opened) -> dict[str, Any]:
    """Kind, size, operators, and the libraries that opened it."""
    import torch

    program = opened.program
    tensors = [*program.parameters(), *program.buffers()]
    is_script = opened.container is Container.TORCHSCRIPT
    operators = (
        Counter(re.findall(r"= (aten::\w+)", str(program.inlined_graph)))
        if is_script
        else Counter(str(n.target) for n in program.graph.nodes if n.op == "call_function")
    )
    body: dict[str, Any] = {
        "model_type": "PyTorch TorchScript" if is_script else "PyTorch exported program",
        "parameters": sum(one.numel() for one in tensors),
        "operators": {clean(name, 80): n for name, n in operators.most_common(20)},
        "libraries": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
    if is_script:
        body["module"] = clean(program.original_name, 80)
    if opened.made_with:
        body["saved_with"] = f"torch {clean(opened.made_with, 40)}"
    return body


# -- conversion --------------------------------------------------------------------------------


def _convert(opened: Opened, case: Case, wanted: Tensors, tolerance: float, report: Report) -> None:
    few = {name: array[:FEW] if array.ndim else array for name, array in case.rows.items()}
    is_batch = all(one.shape[:1] == [-1] for one in case.specs)
    graph = _to_onnx(opened, case, few if is_batch else case.rows, wanted)
    _forget_training_machine(graph)
    _check_names(graph, case, wanted)
    onnx.save_model(graph, OUTPUT_NAME)
    compare(case.rows, wanted, tolerance)
    try:
        Path(REFERENCE_NAME).write_bytes(encode(Frame({}, _reference(case.rows, wanted))))
    except BadFrame as error:
        raise NotConvertible(str(error)) from error
    report.result["conversion"] = {"converter": _converter(opened)}
    report.result["inputs"] = [one.body() for one in case.specs]


def _reference(rows: Tensors, wanted: Tensors) -> dict[str, Array]:
    return {
        **{f"in:{name}": array for name, array in rows.items()},
        **{f"out:{name}": array for name, array in wanted.items()},
    }


def _converter(opened: Opened) -> str:
    import torch

    way = "torch.export" if opened.container is Container.PT2 else "TorchScript"
    return f"torch.onnx {torch.__version__} ({way})"


def _to_onnx(opened: Opened, case: Case, rows: Tensors, wanted: Tensors) -> onnx.ModelProto:
    said = io.StringIO()  # both exporters print their progress
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said):
            warnings.simplefilter("ignore")
            if opened.container is Container.PT2:
                return _from_program(opened, list(wanted))
            return _from_script(opened, case, rows, wanted)
    except MemoryError:
        raise
    except Exception as error:
        raise NotConvertible(f"torch.onnx cannot convert it: {_why(error)}") from error


def _from_program(opened: Opened, outputs: list[str]) -> onnx.ModelProto:
    import torch

    made = torch.onnx.export(
        opened.program,
        dynamo=True,
        opset_version=OPSET,
        input_names=[one.name for one in opened.inputs],
        output_names=outputs,
        external_data=False,
        verbose=False,
    )
    assert made is not None
    graph: onnx.ModelProto = made.model_proto
    return graph


def _from_script(opened: Opened, case: Case, rows: Tensors, wanted: Tensors) -> onnx.ModelProto:
    """TorchScript is taken by the older exporter only."""
    import torch

    count = row_count(case.rows)
    axes = {
        one.name: {at: f"{one.name}_{at}" if at else "rows"
                   for at, size in enumerate(one.shape) if size == -1}
        for one in case.specs
    }  # fmt: skip
    if any(0 in named for named in axes.values()):
        axes |= {name: {0: "rows"} for name, a in wanted.items() if a.shape[:1] == (count,)}
    torch.onnx.export(
        opened.program,
        tuple(torch.from_numpy(np.array(rows[one.name])) for one in opened.inputs),
        OUTPUT_NAME,
        dynamo=False,
        opset_version=OPSET,
        input_names=[one.name for one in opened.inputs],
        output_names=list(wanted),
        dynamic_axes=axes,
    )
    return onnx.load_model(OUTPUT_NAME)


def _why(error: BaseException) -> str:
    """The innermost reason, without the exporters' advice and colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    plain = re.sub(r"\x1b\[\d*m", "", str(error)).strip()
    return clean(f"{type(error).__name__}: {plain.splitlines()[0] if plain else ''}", 300)


def _forget_training_machine(graph: onnx.ModelProto) -> None:
    """Drop stack traces: they are large, and name folders of the machine that exported."""
    places: list[Any] = [graph.graph, *graph.functions]
    places += [*graph.graph.node, *graph.graph.value_info, *graph.graph.input]
    places += [*graph.graph.output, *graph.graph.initializer]
    places += [node for function in graph.functions for node in function.node]
    for place in places:
        place.ClearField("doc_string")
        place.ClearField("metadata_props")


def _check_names(graph: onnx.ModelProto, case: Case, wanted: Tensors) -> None:
    weights = {one.name for one in graph.graph.initializer}
    inputs = [one.name for one in graph.graph.input if one.name not in weights]
    if inputs != [one.name for one in case.specs]:
        raise NotConvertible("The exporter left out or renamed an input.")
    if [one.name for one in graph.graph.output] != list(wanted):
        raise NotConvertible("The exporter left out or renamed an output.")
