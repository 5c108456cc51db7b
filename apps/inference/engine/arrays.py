"""Ready arrays, as binary dialects bring them, against a signature."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from apps.core.errors import FieldProblem
from apps.inference.engine.forms import check_count, check_lengths, check_names, has_batch
from apps.inference.engine.problems import MOST_PROBLEMS, escaped, mismatch
from apps.inference.engine.types import Tensors
from apps.inference.engine.values import FLOATS, array_of
from apps.registry.signature import Dtype, Signature, TensorSpec


def arrays_of(
    tensors: Tensors, signature: Signature, max_rows: int
) -> tuple[dict[str, NDArray[np.generic]], int]:
    """Check arrays and give them the signature's dtypes; also count their rows.

    Raises:
        TooManyRows: More rows than ``max_rows``.
        SignatureMismatch: Something does not fit; ``problems`` point at the inputs.
    """
    check_names(tensors, signature)
    batch = has_batch(signature)
    checked: dict[str, NDArray[np.generic]] = {}
    problems: list[FieldProblem] = []
    for spec in signature.inputs:
        tensor, detail = _fitted(tensors[spec.name], spec)
        if detail is not None:
            problems.append(FieldProblem(f"/inputs/{escaped(spec.name)}", detail))
        checked[spec.name] = tensor
    if problems:
        raise mismatch(problems[:MOST_PROBLEMS])
    if not batch:
        if any(tensor.size == 0 for tensor in checked.values()):
            raise mismatch([FieldProblem("/inputs", "An input has no values; send at least one.")])
        return checked, 1
    first = signature.inputs[0].name
    rows = checked[first].shape[0]
    check_count(rows, max_rows, f"/inputs/{escaped(first)}", batch=True)
    check_lengths({name: tensor.shape[0] for name, tensor in checked.items()})
    return checked, rows


def _fitted(
    tensor: NDArray[np.generic], spec: TensorSpec
) -> tuple[NDArray[np.generic], str | None]:
    """Give a tensor the signature's dtype when nothing is lost, and say what is wrong with it."""
    name = f"Input `{spec.name}`"
    if not _same_shape(tensor.shape, spec.shape):
        wanted = ", ".join("any" if size == -1 else str(size) for size in spec.shape)
        return tensor, f"{name} wants the shape [{wanted}]; it has {list(tensor.shape)}."
    if spec.dtype is Dtype.STRING:
        if tensor.dtype != object or array_of(tensor.ravel().tolist(), spec.dtype) is None:
            return tensor, f"{name} wants texts; it has something else, or invalid Unicode."
    else:
        wanted_dtype = np.dtype(spec.dtype.value)
        if (tensor.dtype.kind == "b") != (wanted_dtype.kind == "b") or not np.can_cast(
            tensor.dtype, wanted_dtype, "safe"
        ):
            return tensor, f"{name} wants {spec.dtype.value}; it has {tensor.dtype.name}."
        tensor = np.ascontiguousarray(tensor, dtype=wanted_dtype)
    return tensor, _wrong_content(tensor, spec)


def _wrong_content(tensor: NDArray[np.generic], spec: TensorSpec) -> str | None:
    name = f"Input `{spec.name}`"
    if spec.dtype in FLOATS and not np.isfinite(cast("NDArray[np.float64]", tensor)).all():
        return f"{name} has NaN or Infinity; every value must be a number."
    if spec.categories:
        known = {_as_stored(one, spec) for one in spec.categories}
        if not set(tensor.ravel().tolist()) <= known:
            return f"{name} has a value that is not one of the signature's categories."
    if spec.dtype is Dtype.STRING or not tensor.size:
        return None
    numbers = cast("NDArray[np.float64]", tensor)  # any number compares as one
    if spec.minimum is not None and float(numbers.min()) < _as_stored(spec.minimum, spec):
        return f"{name} has a value below {spec.minimum:g}."
    if spec.maximum is not None and float(numbers.max()) > _as_stored(spec.maximum, spec):
        return f"{name} has a value above {spec.maximum:g}."
    return None


def _as_stored(value: Any, spec: TensorSpec) -> Any:
    """Round a bound as the tensor's values were: 0.1 as a float32 is not more than 0.1."""
    if spec.dtype not in FLOATS:
        return value
    with np.errstate(over="ignore"):
        return np.dtype(spec.dtype.value).type(value).item()


def _same_shape(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(given) == len(wanted) and all(
        size == want or (want == -1 and (size > 0 or at == 0))
        for at, (size, want) in enumerate(zip(given, wanted, strict=True))
    )
