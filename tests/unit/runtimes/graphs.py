"""Small ONNX graphs, good and hostile, made with the onnx package."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, STRING, BOOL = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.STRING,
    TensorProto.BOOL,
)


def value(name: str, kind: int, shape: list[int | str | None] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray] | None = None,
    *,
    opsets: dict[str, int] | None = None,
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(a, name) for name, a in (constants or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    imports = [helper.make_opsetid(d, v) for d, v in (opsets or {"": 18}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def save(made: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


def linear(columns: int = 3) -> onnx.ModelProto:
    """``y = x @ w + 1``, two outputs of different types."""
    weights = np.arange(1, columns + 1, dtype=np.float32).reshape(columns, 1)
    return model(
        [
            helper.make_node("MatMul", ["x", "w"], ["xw"]),
            helper.make_node("Add", ["xw", "one"], ["y"]),
            helper.make_node("Greater", ["y", "one"], ["big"]),
        ],
        [value("x", FLOAT, ["rows", columns])],
        [value("y", FLOAT, ["rows", 1]), value("big", BOOL, ["rows", 1])],
        {"w": weights, "one": np.ones(1, np.float32)},
    )


def texts() -> onnx.ModelProto:
    """Gives its texts back."""
    return model(
        [helper.make_node("Identity", ["t"], ["same"])],
        [value("t", STRING, ["rows", 1])],
        [value("same", STRING, ["rows", 1])],
    )


def endless_loop() -> onnx.ModelProto:
    """A Loop whose condition stays true for 2**62 rounds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Sin", ["held"], ["next"]),
        ],
        "body",
        [value("round", INT64, []), value("going", BOOL, []), value("held", FLOAT, None)],
        [value("goes_on", BOOL, []), value("next", FLOAT, None)],
    )
    return model(
        [helper.make_node("Loop", ["rounds", "yes", "x"], ["y"], body=body)],
        [value("x", FLOAT, ["rows", 2])],
        [value("y", FLOAT, ["rows", 2])],
        {"rounds": np.array(2**62, np.int64), "yes": np.array(True)},
    )


def mean_of_all_rows() -> onnx.ModelProto:
    """A row's answer depends on the other rows."""
    return model(
        [
            helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        [value("x", FLOAT, ["rows", 2])],
        [value("y", FLOAT, ["rows", 2])],
        {"axes": np.array([0], np.int64)},
    )


def grows_with_its_input() -> onnx.ModelProto:
    """Allocates as many bytes as the request says."""
    return model(
        [
            helper.make_node("ConstantOfShape", ["n"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["y"], keepdims=0),
        ],
        [value("n", INT64, [1])],
        [value("y", FLOAT, [])],
    )


def one_node(kind: str, domain: str = "") -> onnx.ModelProto:
    node = helper.make_node(kind, ["x"], ["y"], domain=domain)
    opsets = {"": 18, domain: 1} if domain else {"": 18}
    return model([node], [value("x", FLOAT, ["n"])], [value("y", FLOAT, ["n"])], opsets=opsets)
