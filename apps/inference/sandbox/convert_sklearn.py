"""Stage ``convert-sklearn``: opens a scikit-learn file and writes it as ONNX, with its answers.

What it leaves behind (the graph, the reference answers, its report) comes from a process that has
opened a hostile file. The graph goes through all checks of an uploaded one, and the answers are
computed again elsewhere.
"""

import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from apps.inference.runtimes import sklearn_face
from apps.inference.runtimes.frames import Frame, encode
from apps.inference.runtimes.sklearn_face import Face
from apps.inference.runtimes.sklearn_load import Opened, Unloadable, open_estimator
from apps.inference.sandbox.conversion import (
    OUTPUT_NAME,
    REFERENCE_NAME,
    NotConvertible,
    compare,
)
from apps.inference.sandbox.report import Refused, Report, clean
from apps.inference.sandbox.trial import Spec, rows_of_example

ROWS = 96
# Old enough for every converter and runtime in use, new enough for all operators we need.
OPSETS = {"": 18, "ai.onnx.ml": 3}
Array = NDArray[np.generic]


def run_stage(ask: Mapping[str, Any], report: Report) -> None:
    """Write the graph and the reference, or say why there is none."""
    estimator = _open(Path(ask["file"]), report)
    report.result["metadata"] = metadata_of(estimator)
    report.result["conversion"] = None
    tolerance = float(ask["tolerance"])
    reasons: list[str] = []
    for number in ("float32", "float64"):
        try:
            _convert(estimator, number, ask.get("example"), tolerance, report)
        except NotConvertible as error:
            reasons.append(str(error))
            continue
        return
    report.result["not_convertible"] = clean(reasons[0], 500)


def _open(path: Path, report: Report) -> Any:
    with report.check("unpickle", "It is made of listed names only") as noted:
        try:
            opened = open_estimator(path)
        except Unloadable as error:
            raise Refused(error.message, error.remedy) from error
        noted.say(f"A fitted {type(opened.estimator).__name__}.")
    _note_versions(opened, report)
    return opened.estimator


def _note_versions(opened: Opened, report: Report) -> None:
    import sklearn

    if opened.made_with:
        report.warn(
            "versions",
            "It was trained with the scikit-learn installed here",
            f"It was written by scikit-learn {', '.join(opened.made_with)}; "
            f"{sklearn.__version__} is installed here. Answers may differ.",
            f"Train and save it again with scikit-learn {sklearn.__version__}.",
        )


def metadata_of(estimator: Any) -> dict[str, Any]:
    """Model type, its steps, classes, and the libraries that opened it."""
    import sklearn

    steps = getattr(estimator, "steps", None)
    classes = getattr(estimator, "classes_", None)
    body: dict[str, Any] = {
        "model_type": f"scikit-learn {type(estimator).__name__}",
        "estimator": type(estimator).__name__,
        "libraries": {
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
    }
    if isinstance(steps, list):
        body["steps"] = [f"{clean(n, 60)}: {type(step).__name__}" for n, step in steps[:20]]
    if isinstance(classes, np.ndarray):
        body["classes"] = [clean(one, 60) for one in classes.tolist()[:100]]
    body["parameters"] = _parameters(estimator)
    return body


def _parameters(estimator: Any) -> dict[str, str]:
    """Hyperparameters that are plain values, as text."""
    try:
        given = estimator.get_params(deep=True)
    except Exception:  # noqa: BLE001  an odd estimator loses its list, not its verdict
        return {}
    plain = {k: v for k, v in given.items() if isinstance(v, str | int | float | bool)}
    return {clean(k, 80): clean(v, 80) for k, v in list(plain.items())[:60]}


def rows_for(
    estimator: Any, face: Face, example: object, number: str, report: Report | None = None
) -> dict[str, Array]:
    """Rows to try the model with: the uploader's, or made from what the model remembers.

    Raises:
        Refused: The model raises on all of them.
    """
    if example:
        specs = [Spec(c.name, c.dtype, [-1, c.width], c.columns) for c in face.inputs]
        try:
            given = rows_of_example(str(example), specs)
        except Refused as error:
            if report is not None:
                report.warn("example", "The example fits the inputs", error.message, error.remedy)
        else:
            return _spread(given)
    made = sklearn_face.sample(estimator, face, ROWS)
    # Logarithms, counts and the like do not take negative numbers.
    folded = {n: np.abs(a) if a.dtype.kind == "f" else a for n, a in made.items()}
    failed: Exception | None = None
    for rows in (made, folded):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sklearn_face.answers(estimator, face.ask(rows))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  any library may raise anything on made-up rows
            failed = failed or error
        else:
            return rows
    raise Refused(
        f"The model raised an error on made-up rows: {type(failed).__name__}: {clean(failed, 300)}",
        "Upload it with an example row, and check that it is fitted.",
    )


def _spread(given: Mapping[str, Array]) -> dict[str, Array]:
    """Many rows like the few that were given."""
    random = np.random.default_rng(7)
    out: dict[str, Array] = {}
    for name, array in given.items():
        many: Array = np.resize(array, (max(ROWS, len(array)), *array.shape[1:]))
        if many.dtype.kind == "f":
            noise = np.asarray(random.normal(1.0, 0.05, many.shape))
            noise[: len(array)] = 1.0
            many = np.multiply(many, noise, dtype=np.float64).astype(many.dtype)
        out[name] = many
    return out


# -- conversion --------------------------------------------------------------------------------


def _convert(
    estimator: Any, number: str, example: object, tolerance: float, report: Report
) -> None:
    face = sklearn_face.face_of(estimator, number=number)
    if face is None:
        raise NotConvertible("The estimator does not say how many columns it wants.")
    rows = rows_for(estimator, face, example, number, report if number == "float32" else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = sklearn_face.answers(estimator, face.ask(rows))
    # References are kept in double precision, also where the graph answers in single.
    wanted = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in wanted.items()}
    with _single_precision_splits(estimator) if number == "float32" else nullcontext():
        model = _to_onnx(estimator, face)
    _name_outputs(model, wanted, number)
    onnx.save_model(model, OUTPUT_NAME)
    compare(rows, wanted, tolerance)
    tensors = {f"in:{name}": array for name, array in rows.items()}
    tensors |= {f"out:{name}": array for name, array in wanted.items()}
    Path(REFERENCE_NAME).write_bytes(encode(Frame({}, tensors)))
    report.result["conversion"] = {"converter": _converter(), "number": number}
    report.result["inputs"] = [
        Spec(c.name, c.dtype, [-1, c.width], c.columns, c.allowed).body() for c in face.inputs
    ]


def _converter() -> str:
    import skl2onnx

    return f"skl2onnx {skl2onnx.__version__}"


def _to_onnx(estimator: Any, face: Face) -> onnx.ModelProto:
    from skl2onnx import to_onnx
    from skl2onnx.common import data_types
    from sklearn.base import is_classifier

    kinds = {
        "float32": data_types.FloatTensorType,
        "float64": data_types.DoubleTensorType,
        "int64": data_types.Int64TensorType,
        "string": data_types.StringTensorType,
    }
    asked = [(one.name, kinds[one.dtype]([None, one.width])) for one in face.inputs]
    no_map = {id(estimator): {"zipmap": False}} if is_classifier(estimator) else {}
    try:
        with warnings.catch_warnings(), _plain_attributes():
            warnings.simplefilter("ignore")
            try:
                options = {**_options(estimator), **no_map}
                model = to_onnx(
                    estimator, initial_types=asked, options=options, target_opset=OPSETS
                )
            except NameError:  # this classifier has no map to switch off
                options = _options(estimator)
                model = to_onnx(
                    estimator, initial_types=asked, options=options, target_opset=OPSETS
                )
    except MemoryError:
        raise
    except Exception as error:
        raise NotConvertible(
            f"skl2onnx cannot convert it: {type(error).__name__}: {clean(error, 200)}"
        ) from error
    got = [one.name for one in model.graph.input]
    if got != [one.name for one in face.inputs]:
        raise NotConvertible("The converter changed the names of the inputs.")
    return cast("onnx.ModelProto", model)


def _options(estimator: Any) -> dict[int, dict[str, Any]]:
    """Settings of the converter for parts that need them."""
    options: dict[int, dict[str, Any]] = {}
    for step in sklearn_face.every_step(estimator):
        if sklearn_face.is_text_reader(step):
            # Its default, en_US.UTF-8, is missing on most servers; this one is always there.
            options[id(step)] = {"locale": "C.UTF-8"}
    for part in (estimator, *sklearn_face.every_step(estimator)):
        if getattr(part, "flatten_transform", None):
            part.flatten_transform = False  # only for transform(); the converter knows no other
    return options


@contextmanager
def _single_precision_splits(estimator: Any) -> Iterator[None]:
    """Move the splits of histogram boosting to the next single-precision number below.

    The converter rounds them to the nearest, so a row that stands on a split may change sides. For
    single-precision rows ``x <= t`` and ``x <= down(t)`` are the same question.
    """
    steps = sklearn_face.every_step(estimator)
    rows = [row for step in steps for row in getattr(step, "_predictors", None) or []]
    exact = [(predictor, predictor.nodes) for row in rows for predictor in row]
    for predictor, nodes in exact:
        near = nodes["num_threshold"].astype(np.float32)
        below = np.nextafter(near, np.float32(-np.inf))
        predictor.nodes = nodes.copy()
        predictor.nodes["num_threshold"] = np.where(near > nodes["num_threshold"], below, near)
    try:
        yield
    finally:
        for predictor, nodes in exact:
            predictor.nodes = nodes


@contextmanager
def _plain_attributes() -> Iterator[None]:
    """Let skl2onnx 1.20 write trees with current protobuf.

    It puts numpy scalars and booleans into lists of whole numbers, which protobuf from 5 on
    refuses; without this no histogram gradient boosting converts.
    """
    from skl2onnx.common import _container

    make_node = _container.make_node

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        value = value.item() if isinstance(value, np.generic) else value
        return int(value) if isinstance(value, bool) else value

    def make_plain_node(*args: Any, **attributes: Any) -> onnx.NodeProto:
        plainer = {name: plain(one) for name, one in attributes.items()}
        return cast("onnx.NodeProto", make_node(*args, **plainer))

    _container.make_node = make_plain_node
    try:
        yield
    finally:
        _container.make_node = make_node


def _name_outputs(model: onnx.ModelProto, wanted: Mapping[str, Array], number: str) -> None:
    """Give the outputs our names, in our order, flat where the original answers flat.

    Numbers are cast to the precision that was asked for: some operators answer in single whatever
    they are given, and the converter then declares the wrong type.
    """
    float_kind = onnx.TensorProto.FLOAT if number == "float32" else onnx.TensorProto.DOUBLE
    found = list(model.graph.output)
    if len(found) < len(wanted):
        raise NotConvertible("The converted graph has fewer outputs than the model.")
    del model.graph.output[:]
    for (name, array), value in zip(wanted.items(), found, strict=False):
        inner = f"{value.name}__converted"
        _rename(model.graph.node, value.name, inner)
        kind = float_kind if array.dtype.kind == "f" else value.type.tensor_type.elem_type
        nodes = model.graph.node
        if array.dtype.kind == "f":
            nodes.append(onnx.helper.make_node("Cast", [inner], [f"{inner}_cast"], to=kind))
            inner = f"{inner}_cast"
        if array.ndim == 1:
            flat = onnx.helper.make_tensor(f"{name}__flat", onnx.TensorProto.INT64, [1], [-1])
            model.graph.initializer.append(flat)
            nodes.append(onnx.helper.make_node("Reshape", [inner, flat.name], [name]))
        else:
            nodes.append(onnx.helper.make_node("Identity", [inner], [name]))
        sizes = ["rows", *array.shape[1:]]
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, sizes))


def _rename(nodes: Sequence[onnx.NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new
