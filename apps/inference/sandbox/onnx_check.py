"""Stage ``onnx-check``: walks every part of an ONNX file before any runtime sees it.

The checker of the onnx package lets pass what a runtime then stumbles over: unknown operator
sets, absurd sizes, no inputs, constants that grow to gigabytes when the graph is folded. So the
whole tree is walked here: graphs, subgraphs, functions, training info, every tensor.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import defs, numpy_helper

from apps.inference.sandbox.report import Refused, Report, clean

OUTPUT_NAME = "model.onnx"
MOST_NODES = 1_000_000
MOST_DEPTH = 20
MOST_TENSORS = 512
MOST_DIM = 1 << 40
MOST_FOLDED_BYTES = 512 << 20
MOST_RANK = 8

STANDARD = {"": "ai.onnx", "ai.onnx": "ai.onnx", "ai.onnx.ml": "ai.onnx.ml"}
# The part of ONNX Runtime's own set that exporters and its optimiser write, and that only
# computes. EPContext (loads other files) and the like are left out by not being here.
MICROSOFT = frozenset(
    """
    Attention BiasAdd BiasGelu BiasSplitGelu BifurcationDetector ConvTransposeWithDynamicPads
    CropAndResize DequantizeLinear DynamicQuantizeLSTM DynamicQuantizeMatMul
    EmbedLayerNormalization ExpandDims FastGelu FusedConv FusedGemm FusedMatMul
    FusedMatMulActivation GatherBlockQuantized GatherND Gelu GreedySearch GridSample GroupNorm
    GroupQueryAttention Inverse LayerNormalization MatMulBnb4 MatMulInteger16
    MatMulIntegerToFloat MatMulNBits MaxpoolWithMask MultiHeadAttention MurmurHash3 NhwcConv
    NhwcFusedConv NhwcMaxPool NGramRepeatBlock Pad PackedAttention QAttention
    QEmbedLayerNormalization QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv
    QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid
    QLinearSoftmax QLinearWhere QMoE QOrderedAttention QuantizeLinear QuickGelu Range
    ReduceSumInteger RelativePositionBias RotaryEmbedding SampleOp SimplifiedLayerNormalization
    SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization SparseToDenseMatMul
    Tokenizer TorchEmbedding TransposeMatMul Trilu Unique WordConvEmbedding
    """.split()  # noqa: SIM905  ninety names read better as words
)

Node = onnx.NodeProto
Tensor = onnx.TensorProto


def run(ask: Mapping[str, Any], report: Report) -> None:
    """Check the file; write metadata, and a rewritten file where a ZipMap had to go."""
    path = Path(ask["file"])
    with report.check("parse", "The file is a whole ONNX model"):
        model = _read(path)
    with report.check("structure", "The graph is sound and computes only what is known") as noted:
        walked = _walk(model)
        noted.say(f"{walked.nodes} operators, {walked.parameters} parameters.")
    with report.check("checker", "The ONNX checker agrees"):
        _ask_checker(model)
    with report.check("interface", "It has inputs and outputs that a request can carry") as noted:
        rewritten = _drop_zip_maps(model)
        _check_interface(model)
        if rewritten:
            onnx.save_model(model, OUTPUT_NAME)
            noted.warn(
                "Its probabilities came as a list of maps (ZipMap), which is slow and cannot be "
                "described; the served copy gives them as a table.",
                "Export with options={'zipmap': False} to have the same file.",
            )
    report.result["rewritten"] = rewritten
    report.result["metadata"] = _metadata(model, walked)


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except Exception as error:
        raise Refused(
            f"The file is not a readable ONNX model: {clean(error, 200)}",
            "Upload the whole file; models over 2 GB cannot be one ONNX file.",
        ) from error
    if not model.HasField("graph") or not model.graph.node:
        raise Refused("The ONNX file holds no graph.", "Export the model again.")
    return model


# -- the walk ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Walked:
    """What the walk counted."""

    nodes: int
    parameters: int
    operators: Counter[str]


def _walk(model: onnx.ModelProto) -> Walked:
    opsets = _opsets(model)
    own = {(f.domain, f.name) for f in model.functions}
    walked = Walked(0, 0, Counter())
    graphs = list(_graphs(model))
    for graph in graphs:
        for tensor in _graph_tensors(graph):
            walked.parameters += _check_tensor(tensor)
    for scope, node in _nodes(model, graphs):
        walked.nodes += 1
        walked.operators[node.op_type] += 1
        if walked.nodes > MOST_NODES:
            raise Refused(f"The graph has more than {MOST_NODES} operators.")
        _check_operator(node, opsets, own)
        for tensor in _attribute_tensors(node):
            walked.parameters += _check_tensor(tensor)
        _check_folding(node, scope)
    return walked


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    newest = {"ai.onnx": defs.onnx_opset_version(), "ai.onnx.ml": _newest_ml()}
    own = {f.domain for f in model.functions}
    opsets: dict[str, int] = {}
    for one in model.opset_import:
        domain = STANDARD.get(one.domain, one.domain)
        if domain not in newest and domain != "com.microsoft" and one.domain not in own:
            # Exporters list sets that they do not use; only use is refused, operator by operator.
            continue
        if domain in newest and not 1 <= one.version <= newest[domain]:
            raise Refused(
                f"The model asks for operator set {one.version} of {domain}; the newest known "
                f"here is {newest[domain]}.",
                "Export it with an older target_opset.",
            )
        opsets[domain] = one.version
    if not opsets:
        raise Refused("The model names no operator set that is known here.")
    return opsets


def _newest_ml() -> int:
    return max(
        (one.since_version for one in defs.get_all_schemas_with_history()
         if one.domain == "ai.onnx.ml"), default=1,
    )  # fmt: skip


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Every graph in the file, with those inside operators, functions and training."""
    tops = [model.graph]
    for training in model.training_info:
        tops += [training.initialization, training.algorithm]
    waiting = [(graph, 0) for graph in tops]
    waiting += [(g, 1) for f in model.functions for n in f.node for g in _subgraphs(n)]
    while waiting:
        graph, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise Refused(f"The graph is nested deeper than {MOST_DEPTH}.")
        yield graph
        waiting += [(inner, depth + 1) for node in graph.node for inner in _subgraphs(node)]


def _subgraphs(node: Node) -> list[onnx.GraphProto]:
    found: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found.append(attribute.g)
        found += attribute.graphs
    return found


Scope = dict[str, Tensor]


def _nodes(
    model: onnx.ModelProto, graphs: Sequence[onnx.GraphProto]
) -> Iterator[tuple[Scope, Node]]:
    """Every operator, with the constants that stand beside it."""
    groups = [(graph.initializer, graph.node) for graph in graphs]
    groups += [((), function.node) for function in model.functions]
    for initializers, nodes in groups:
        scope = {one.name: one for one in initializers}
        for node in nodes:
            if node.op_type == "Constant" and node.output:
                for attribute in node.attribute:
                    if attribute.HasField("t"):
                        scope[node.output[0]] = attribute.t
        for node in nodes:
            yield scope, node


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[Tensor]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices


def _attribute_tensors(node: Node) -> Iterator[Tensor]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for one in [*sparse, *attribute.sparse_tensors]:
            yield one.values
            yield one.indices


def _check_tensor(tensor: Tensor) -> int:
    """Refuse data that lies elsewhere, and sizes that cannot be; returns its elements."""
    if tensor.data_location == Tensor.EXTERNAL or tensor.external_data:
        raise Refused(
            f"Tensor {clean(tensor.name, 80)} keeps its data in another file (external data), "
            "which is not accepted.",
            "Save the model as one file: onnx.save(model, path, save_as_external_data=False).",
        )
    if any(size < 0 or size > MOST_DIM for size in tensor.dims) or len(tensor.dims) > MOST_RANK:
        raise Refused(
            f"Tensor {clean(tensor.name, 80)} has an impossible shape {list(tensor.dims)[:8]}."
        )
    return math.prod(tensor.dims)


def _check_operator(node: Node, opsets: Mapping[str, int], own: set[tuple[str, str]]) -> None:
    if (node.domain, node.op_type) in own:
        return
    words = f"{node.domain or 'ai.onnx'}.{node.op_type}"
    if node.domain == "com.microsoft":
        if node.op_type not in MICROSOFT:
            raise Refused(
                f"The model uses the operator {clean(words, 120)}, which is not accepted.",
                "Export the model without runtime-specific optimisation.",
            )
        return
    if node.domain not in STANDARD:
        raise Refused(
            f"The model uses the operator {clean(words, 120)} of a custom set.",
            "Export the model with standard ONNX operators only.",
        )
    domain = STANDARD[node.domain]
    schema_domain = "" if domain == "ai.onnx" else domain
    if domain not in opsets or not defs.has(node.op_type, opsets[domain], schema_domain):
        raise Refused(
            f"The operator {clean(words, 120)} does not exist in operator set "
            f"{opsets.get(domain, 'none')}.",
            "Export the model again with a current exporter.",
        )


def _check_folding(node: Node, scope: Scope) -> None:
    """Refuse an operator on constants alone whose result a runtime would build at load."""
    if node.domain not in {"", "ai.onnx"}:
        return
    elements = _folded_elements(node, [scope.get(name) for name in node.input])
    if elements * 4 > MOST_FOLDED_BYTES:
        raise Refused(
            f"The operator {node.op_type} builds a constant of {elements:.3g} elements, more "
            f"than {MOST_FOLDED_BYTES >> 20} MB.",
            "Look for a shape that has become a constant by mistake.",
        )


def _folded_elements(node: Node, constants: list[Tensor | None]) -> float:
    values = [_values(one) for one in constants]
    if node.op_type == "ConstantOfShape" and values and values[0] is not None:
        return math.prod(values[0])
    if node.op_type == "Expand" and len(values) > 1 and values[1] is not None:
        return math.prod(values[1])
    if node.op_type == "Tile" and len(values) > 1 and values[1] is not None:
        inner = math.prod(constants[0].dims) if constants[0] is not None else 1
        return inner * math.prod(values[1])
    if node.op_type == "Range" and len(values) == 3 and all(one for one in values):
        start, limit, step = (one[0] for one in values if one)
        return abs((limit - start) / step) if step else math.inf
    return 0


def _values(tensor: Tensor | None) -> list[float] | None:
    """The numbers of a small constant; shapes are never long."""
    if tensor is None or math.prod(tensor.dims) > 64:
        return None
    try:
        return [float(one) for one in numpy_helper.to_array(tensor).reshape(-1)]
    except (TypeError, ValueError):
        return None


def _ask_checker(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise Refused(
            f"The ONNX checker refuses the model: {clean(first, 300)}",
            "Run onnx.checker.check_model on it and export it again.",
        ) from error


# -- inputs and outputs ------------------------------------------------------------------------


def _check_interface(model: onnx.ModelProto) -> None:
    weights = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in weights]
    for words, values in (("input", inputs), ("output", list(model.graph.output))):
        if not 1 <= len(values) <= MOST_TENSORS:
            raise Refused(
                f"The model has {len(values)} {words}s; it needs 1 to {MOST_TENSORS}.",
                "Export the model with the tensors that a request should carry.",
            )
        names = [one.name for one in values]
        if len(set(names)) != len(names) or not all(0 < len(name) <= 500 for name in names):
            raise Refused(f"Two {words}s have the same name, or one has none.")
        for value in values:
            _check_value(words, value)


def _check_value(words: str, value: onnx.ValueInfoProto) -> None:
    if not value.type.HasField("tensor_type"):
        raise Refused(
            f"The {words} {clean(value.name, 80)} is not a tensor but "
            f"{value.type.WhichOneof('value') or 'untyped'}.",
            "Export the model with tensors only.",
        )
    dims = value.type.tensor_type.shape.dim
    if len(dims) > MOST_RANK or any(
        one.HasField("dim_value") and not 0 <= one.dim_value < 2**31 for one in dims
    ):
        raise Refused(f"The {words} {clean(value.name, 80)} has an impossible shape.")


def _drop_zip_maps(model: onnx.ModelProto) -> bool:
    """Give the table that a final ZipMap would have turned into a list of maps."""
    makers = {name: node for node in model.graph.node for name in node.output}
    dropped = False
    for value in model.graph.output:
        node = makers.get(value.name)
        if node is None or node.op_type != "ZipMap" or node.domain != "ai.onnx.ml":
            continue
        passed_on = onnx.helper.make_node("Identity", [node.input[0]], [value.name])
        node.CopyFrom(passed_on)
        table = onnx.helper.make_tensor_value_info(value.name, Tensor.FLOAT, ["rows", "classes"])
        value.CopyFrom(table)
        dropped = True
    return dropped


def _metadata(model: onnx.ModelProto, walked: Walked) -> dict[str, Any]:
    return {
        "model_type": "ONNX graph",
        "producer": clean(f"{model.producer_name} {model.producer_version}".strip(), 120),
        "ir_version": int(model.ir_version),
        "opsets": {
            clean(one.domain or "ai.onnx", 80): int(one.version)
            for one in list(model.opset_import)[:20]
        },
        "operators": {clean(k, 80): n for k, n in walked.operators.most_common(20)},
        "nodes": walked.nodes,
        "parameters": min(walked.parameters, 2**53),
        "description": clean(model.doc_string, 500),
        "properties": {
            clean(one.key, 80): clean(one.value, 300) for one in list(model.metadata_props)[:20]
        },
    }
