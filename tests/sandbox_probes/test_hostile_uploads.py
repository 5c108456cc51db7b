"""Files that want to do harm: rejected, with a reason in words, and nothing outside was touched."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LinearRegression

from tests.sandbox_probes.test_uploads import judged
from tests.unit.runtimes import graphs
from tests.unit.runtimes.crashing import crashing_tree


class Call:
    """Unpickles as a call of any function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def fitted(**state: object) -> LinearRegression:
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    vars(model).update(state)
    return model


def as_joblib(thing: object, compress: int = 0) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(thing, buffer, compress=compress)
    return buffer.getvalue()


def hostile_skops() -> bytes:
    schema = (
        '{"__class__": "system", "__module__": "posix", "__loader__": "FunctionNode", '
        '"__id__": 1, "content": {"module_path": "posix", "function": "system"}, '
        '"protocol": 2, "_skops_version": "0.16.0"}'
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", schema)
    return buffer.getvalue()


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "{}")
        archive.writestr("zeros", bytes(100 << 20))
    return buffer.getvalue()


def external_data() -> bytes:
    made = graphs.linear()
    weight = made.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../../etc/passwd")
    return made.SerializeToString()


def hidden_external_data() -> bytes:
    """External data inside a Constant inside a subgraph."""
    made = graphs.endless_loop()
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.append(helper.make_attribute("value", tensor))
    made.graph.node[0].attribute[0].g.node.append(node)
    return made.SerializeToString()


def folding_bomb() -> bytes:
    return graphs.model(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
            helper.make_node("Add", ["x", "sum"], ["y"]),
        ],
        [graphs.value("x", graphs.FLOAT, ["n"])],
        [graphs.value("y", graphs.FLOAT, ["n"])],
        {"shape": np.array([1 << 34], np.int64)},
    ).SerializeToString()


def hidden_folding_bomb() -> bytes:
    """The shape is computed from constants, so that no single operator shows it."""
    made = onnx.load_from_string(folding_bomb())
    made.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.array([1 << 17], np.int64), "half")
    )
    made.graph.node.insert(0, helper.make_node("Mul", ["half", "half"], ["shape"]))
    return made.SerializeToString()


def no_inputs() -> bytes:
    made = graphs.model(
        [helper.make_node("Identity", ["c"], ["y"])],
        [],
        [graphs.value("y", graphs.FLOAT, [1])],
        {"c": np.ones(1, np.float32)},
    )
    return made.SerializeToString()


def strange_opset() -> bytes:
    made = graphs.linear()
    made.opset_import[0].version = 999
    return made.SerializeToString()


def negative_shape() -> bytes:
    made = graphs.linear()
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -7
    return made.SerializeToString()


PICKLES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "os.system": (lambda at: pickle.dumps(Call(os.system, f"touch {at}")), "system"),
    "exec": (lambda at: pickle.dumps(Call(exec, f"open({str(at)!r}, 'w')")), "builtins.exec"),
    "eval, nested": (
        lambda at: pickle.dumps(fitted(coef_=[Call(eval, f"open({str(at)!r}, 'w')")])),
        "builtins.eval",
    ),
    "getattr": (lambda at: pickle.dumps(Call(getattr, at, "touch")), "not on the list"),
    "open, through joblib": (lambda at: as_joblib(fitted(a=Call(open, str(at), "w"))), "open"),
    "open, compressed": (lambda at: as_joblib(fitted(a=Call(open, str(at), "w")), 3), "open"),
    "open, in an array": (
        lambda at: as_joblib(fitted(coef_=np.array([Call(open, str(at), "w"), 1], dtype=object))),
        "open",
    ),
    "numpy.load": (lambda at: pickle.dumps(Call(np.load, str(at))), "numpy"),
    "old protocol": (lambda at: f"cposix\nsystem\n(S'touch {at}'\ntR.".encode(), "posix.system"),
    "64 GB": (lambda at: pickle.dumps(fitted(coef_=Call(bytearray, 64 << 30))), "more memory"),
    "crash": (lambda at: pickle.dumps(crashing_tree()), "crashed (signal 11"),
    "truncated": (lambda at: pickle.dumps(fitted())[:200], "damaged"),
    "no estimator": (lambda at: pickle.dumps({"a": 1}), "a dict"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_hostile_pickle_is_rejected_and_does_nothing(kind: str, tmp_path: Path) -> None:
    make, words = PICKLES[kind]
    target = tmp_path / "touched"
    (tmp_path / "m.pkl").write_bytes(make(target))
    native = frozenset({"sklearn"})
    with judged(tmp_path / "m.pkl", native_formats=native) as verdict:
        assert not verdict.ready
        assert words in (verdict.reason or "")
    assert not target.exists()


def test_the_scanners_opinion_is_shown_and_is_not_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Call(os.system, "true")))
    with judged(tmp_path / "m.pkl") as verdict:
        assert "dangerous" in {f["safety"] for f in verdict.report["scanners"][0]["findings"]}


OTHERS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "skops with a function": ("m.skops", hostile_skops, "posix.system"),
    "zip bomb": ("m.skops", bomb, "zip bomb"),
    "external data": ("m.onnx", external_data, "external data"),
    "hidden external data": ("m.onnx", hidden_external_data, "external data"),
    "folding bomb": ("m.onnx", folding_bomb, "builds a constant"),
    "hidden folding bomb": ("m.onnx", hidden_folding_bomb, ""),
    "no inputs": ("m.onnx", no_inputs, "0 inputs"),
    "opset 999": ("m.onnx", strange_opset, "999"),
    "negative shape": ("m.onnx", negative_shape, "impossible shape"),
    "custom operator": (
        "m.onnx",
        lambda: graphs.one_node("Steal", "evil.org").SerializeToString(),
        "evil.org.Steal",
    ),
    "EPContext": (
        "m.onnx",
        lambda: graphs.one_node("EPContext", "com.microsoft").SerializeToString(),
        "EPContext",
    ),
    "unknown operator": (
        "m.onnx",
        lambda: graphs.one_node("NoSuchThing").SerializeToString(),
        "NoSuchThing",
    ),
    "truncated": ("m.onnx", lambda: graphs.linear().SerializeToString()[:-20], "ends too early"),
    "empty": ("m.onnx", lambda: b"", "empty"),
    "text": ("m.onnx", lambda: b"hello, world\n", "text"),
    "pickle named onnx": ("m.onnx", lambda: pickle.dumps(fitted()), "name ends in .onnx"),
    "onnx named pickle": (
        "m.pkl",
        lambda: graphs.linear().SerializeToString(),
        "name ends in .pkl",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_bad_file_is_rejected_in_words(kind: str, tmp_path: Path) -> None:
    name, make, words = OTHERS[kind]
    (tmp_path / name).write_bytes(make())
    with judged(tmp_path / name) as verdict:
        assert not verdict.ready
        assert verdict.reason
        assert words in verdict.reason
        assert verdict.report["checks"][-1]["state"] == "failed"


def test_an_endless_model_is_rejected_at_its_deadline(tmp_path: Path) -> None:
    path = graphs.save(graphs.endless_loop(), tmp_path / "m.onnx")
    with judged(path, stage_seconds=6.0) as verdict:
        assert "It ran longer than 6 s." in (verdict.reason or "")


def test_a_model_that_never_ends_does_not_hold_up_another_upload(tmp_path: Path) -> None:
    loop = graphs.save(graphs.endless_loop(), tmp_path / "loop.onnx")
    (tmp_path / "other").mkdir()
    good = graphs.save(graphs.linear(), tmp_path / "other" / "good.onnx")
    with judged(loop, stage_seconds=6.0) as bad, judged(good) as other:
        assert not bad.ready
        assert other.ready
