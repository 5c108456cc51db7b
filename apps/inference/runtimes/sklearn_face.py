"""What a fitted estimator wants to be asked and what it answers, as named tensors.

Read from the fitted state: encoders know their categories, imputers the kind of their fill value,
column transformers which column goes where. A model that was trained on named columns of several
kinds is asked by column; a purely numeric one by one matrix ``x``.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.inference.engine.types import Tensors

MATRIX = "x"
TEXTS = "text"
NUMBER = "float32"
MOST_CATEGORIES = 200

Array = NDArray[np.generic]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Column:
    """One input: its name, element type, width, and what is known of its values.

    ``categories`` are values seen in training; only where the encoder refuses others are they
    ``closed``, so that a request with another one is wrong.
    """

    name: str
    dtype: str
    width: int = 1
    columns: tuple[str, ...] = ()
    categories: tuple[Any, ...] = ()
    closed: bool = False

    @property
    def allowed(self) -> tuple[Any, ...]:
        """Values a request may hold, or empty for any."""
        return self.categories if self.closed else ()


@dataclass(frozen=True, slots=True)
class Face:
    """How an estimator is asked.

    Attributes:
        inputs: The named inputs, in order.
        names: Column names of the table it was trained on, or empty.
        is_texts: The one input is a list of texts, not a table.
        is_table: The inputs are columns of one table.
    """

    inputs: tuple[Column, ...]
    names: tuple[str, ...] = ()
    is_texts: bool = False
    is_table: bool = False

    def ask(self, tensors: Tensors) -> Any:
        """Turn named tensors into what ``predict`` takes."""
        arrays = [tensors[one.name] for one in self.inputs]
        if self.is_texts:
            return [str(text) for text in arrays[0].reshape(-1)]
        if self.is_table:
            return self._table(arrays)
        matrix = arrays[0]
        wide = matrix if matrix.dtype.kind == "O" else matrix.astype(np.float64)
        return _frame(dict(zip(self.names, wide.T, strict=True))) if self.names else wide

    def _table(self, arrays: Sequence[Array]) -> Any:
        flat = [_wide(array.reshape(len(array))) for array in arrays]
        if self.names:
            return _frame(dict(zip(self.names, flat, strict=True)))
        if all(column.dtype.kind != "O" for column in flat):
            return np.column_stack(flat)
        table = np.empty((len(flat[0]), len(flat)), dtype=object)
        for at, column in enumerate(flat):
            table[:, at] = column
        return table


def face_of(estimator: Any, *, number: str = NUMBER) -> Face | None:
    """Read how an estimator is asked; None if its state does not say.

    Args:
        estimator: A fitted estimator or pipeline.
        number: Element type for numeric inputs.
    """
    first = first_step(estimator)
    if is_text_reader(first):
        return Face((Column(TEXTS, "string"),), is_texts=True)
    count = getattr(estimator, "n_features_in_", getattr(first, "n_features_in_", None))
    if not isinstance(count, int) or count < 1:
        return None
    names = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
    kinds: dict[int, Column] = {}
    _read_kinds(first_steps(estimator), list(range(count)), kinds)
    columns = [kinds.get(at, Column("", number)) for at in range(count)]
    return _arrange(columns, names, is_split=hasattr(first, "transformers_"), number=number)


def _arrange(columns: list[Column], names: tuple[str, ...], *, is_split: bool, number: str) -> Face:
    if not (is_split and names) and all(one == Column("", number) for one in columns):
        return Face((Column(MATRIX, number, len(columns), names),), names)
    known = names or tuple(f"column_{at}" for at in range(len(columns)))
    named = (
        Column(name, one.dtype, categories=one.categories, closed=one.closed)
        for name, one in zip(known, columns, strict=True)
    )
    return Face(tuple(named), names, is_table=True)


def first_step(estimator: Any) -> Any:
    """The part that meets the data first."""
    steps = first_steps(estimator)
    return steps[0] if steps else estimator


def first_steps(estimator: Any) -> list[Any]:
    """The steps in order, seen through searches and nested pipelines."""
    for name in ("best_estimator_", "estimator_"):
        inner = getattr(estimator, name, None)
        if inner is not None and not isinstance(inner, str):
            return first_steps(inner)
    steps = getattr(estimator, "steps", None)
    if not isinstance(steps, list):
        return [estimator]
    parts = [step for _, step in steps if step not in {None, "passthrough"}]
    return first_steps(parts[0]) + parts[1:] if parts else [estimator]


def is_text_reader(step: Any) -> bool:
    """Whether it takes texts and counts their words."""
    return hasattr(step, "build_analyzer") and hasattr(step, "ngram_range")


def _read_kinds(steps: Sequence[Any], places: list[int], kinds: dict[int, Column]) -> None:
    """Note the kind of each place of the table, as the first steps that see it know it."""
    for step in steps:
        if hasattr(step, "transformers_"):
            _read_branches(step, places, kinds)
            return
        if is_text_reader(step):
            kinds.update(dict.fromkeys(places, Column("", "string")))
            return
        _read_categories(step, places, kinds)
        # Behind an imputer the columns are still the same columns; behind others they may not be.
        if not hasattr(step, "statistics_"):
            return


def _read_branches(split: Any, places: list[int], kinds: dict[int, Column]) -> None:
    where: Mapping[str, list[int]] = getattr(split, "_transformer_to_input_indices", {})
    for name, part, _ in split.transformers_:
        inside = [places[at] for at in where.get(name, []) if at < len(places)]
        if not isinstance(part, str):
            _read_kinds(first_steps(part), inside, kinds)


def _read_categories(step: Any, places: list[int], kinds: dict[int, Column]) -> None:
    fills = getattr(step, "statistics_", None)
    if isinstance(fills, np.ndarray) and fills.dtype.kind in "OUS":
        kinds.update(dict.fromkeys(places, Column("", "string")))
    known = getattr(step, "categories_", None)
    if isinstance(known, list) and len(known) == len(places):
        for place, values in zip(places, known, strict=True):
            closed = getattr(step, "handle_unknown", "") == "error"
            kinds[place] = _categorical(np.asarray(values), closed=closed)


def _categorical(values: Array, *, closed: bool) -> Column:
    closed = closed and len(values) <= MOST_CATEGORIES
    if values.dtype.kind in "OUS":
        texts = [one for one in values.tolist() if isinstance(one, str)]
        numbers = [one for one in values.tolist() if isinstance(one, int | float)]
        if len(numbers) > len(texts):
            return Column("", NUMBER)
        return Column("", "string", categories=tuple(texts[:MOST_CATEGORIES]), closed=closed)
    if values.dtype.kind in "iub":
        whole = tuple(int(one) for one in values[:MOST_CATEGORIES])
        return Column("", "int64", categories=whole, closed=closed)
    return Column("", NUMBER)


def answers(estimator: Any, asked: Any) -> dict[str, Array]:
    """Everything a caller is told about these rows, by output name."""
    if not hasattr(estimator, "predict"):
        return {"transformed": _dense(estimator.transform(asked))}
    told = np.asarray(estimator.predict(asked))
    if not has_labels(estimator):
        return {"prediction": told}
    out = {"label": _plain_labels(told)}
    if hasattr(estimator, "predict_proba"):
        chances = estimator.predict_proba(asked)
        if isinstance(chances, np.ndarray):
            out["probabilities"] = chances
    return out


def has_labels(estimator: Any) -> bool:
    """Whether it says which class, cluster or side, rather than how much."""
    from sklearn.base import is_clusterer, is_outlier_detector

    return bool(
        hasattr(estimator, "classes_") or is_clusterer(estimator) or is_outlier_detector(estimator)
    )


def _plain_labels(labels: Array) -> Array:
    if labels.dtype.kind in "US":
        return labels.astype(object)
    return labels.astype(np.int64) if labels.dtype.kind in "iu" else labels


def _dense(table: Any) -> Array:
    return np.asarray(table.toarray() if hasattr(table, "toarray") else table)


def _wide(column: Array) -> Array:
    return column.astype(np.float64) if column.dtype.kind == "f" else column


def _frame(columns: Mapping[str, Array]) -> Any:
    import pandas as pd

    series = {name: pd.Series(list(c), dtype=object) if c.dtype.kind == "O" else c
              for name, c in columns.items()}  # fmt: skip
    return pd.DataFrame(series)


# -- rows to try it with -----------------------------------------------------------------------


def sample(estimator: Any, face: Face, rows: int, seed: int = 7) -> dict[str, Array]:
    """Make rows like those it was trained on, from what its fitted state remembers."""
    random = np.random.default_rng(seed)
    width = sum(one.width for one in face.inputs)
    table = _numbers(estimator, face, width, rows, random)
    out: dict[str, Array] = {}
    at = 0
    words = _vocabulary(estimator)
    for one in face.inputs:
        block = table[:, at : at + one.width]
        at += one.width
        out[one.name] = _fill(one, block, words, random)
    return out


def _fill(one: Column, block: Array, words: list[str], random: np.random.Generator) -> Array:
    rows = len(block)
    if one.dtype == "string":
        text = np.empty((rows, one.width), dtype=object)
        for place in np.ndindex(rows, one.width):
            text[place] = _some_text(one, words, random)
        return text
    if one.categories:
        return random.choice(np.asarray(one.categories), (rows, one.width)).astype(one.dtype)
    return block.astype(one.dtype)


def _some_text(one: Column, words: list[str], random: np.random.Generator) -> str:
    """A known category, or a few known words written as people write."""
    if one.categories:
        return str(one.categories[int(random.integers(len(one.categories)))])
    picked = [words[int(at)] for at in random.integers(len(words), size=5)]
    picked[0] = picked[0].capitalize()
    return f"{picked[0]} {picked[1].upper()}, {' '.join(picked[2:])}!"


def _numbers(
    estimator: Any, face: Face, width: int, rows: int, random: np.random.Generator
) -> NDArray[np.float64]:
    centre, spread = np.zeros(width), np.ones(width)
    hints = (hint for step in _all_parts(estimator) for hint in _hints(step, width))
    for middle, far in itertools.islice(hints, 1):
        known = np.isfinite(middle) & np.isfinite(far)
        centre = np.where(known, middle, centre)
        spread = np.where(known & (far > 0), far, spread)
    table = random.normal(centre, spread, (rows, width))
    # Where a tree splits, single and double precision part ways first: half the rows stand there.
    for feature, cuts in _cuts(estimator).items():
        if feature < width and rows > 1:
            table[rows // 2 :, feature] = random.choice(cuts, rows - rows // 2)
    return table.astype(np.float32).astype(float)


def _all_parts(estimator: Any) -> Iterator[Any]:
    """The steps whose state speaks of the input columns themselves."""
    steps = first_steps(estimator)
    yield from steps[:1] if len(steps) > 1 else steps
    inner = getattr(steps[0], "estimators_", None)
    if isinstance(inner, list | np.ndarray):
        yield from list(np.asarray(inner, dtype=object).reshape(-1))[:10]


def _hints(step: Any, width: int) -> Iterator[tuple[Floats, Floats]]:
    """Middle and spread of each column, wherever this kind of step keeps them."""
    for middle, far in (("mean_", "scale_"), ("center_", "scale_"), ("means_", "covariances_")):
        pair = _row(step, middle, width), _row(step, far, width)
        if pair[0] is not None and pair[1] is not None:
            yield pair[0], pair[1]
    low, high = _row(step, "data_min_", width), _row(step, "data_max_", width)
    if low is not None and high is not None:
        yield (low + high) / 2, (high - low) / 4
    if (fills := _row(step, "statistics_", width)) is not None:
        yield fills, np.abs(fills) / 2 + 0.5
    for points in ("theta_", "cluster_centers_", "_fit_X", "support_vectors_", "components_"):
        table = getattr(step, points, None)
        if isinstance(table, np.ndarray) and table.ndim == 2 and table.shape[1] == width:
            yield table.mean(axis=0), table.std(axis=0) + 1e-3
    yield from _thresholds(step, width)


def _thresholds(step: Any, width: int) -> Iterator[tuple[Floats, Floats]]:
    """Rows around the values where trees split reach all their leaves."""
    cuts = _cuts(step)
    if not cuts:
        return
    middle, far = np.zeros(width), np.ones(width)
    for at, values in cuts.items():
        if at < width:
            middle[at], far[at] = values.mean(), values.std() + abs(values.mean()) * 0.1 + 0.1
    yield middle, far


def _cuts(estimator: Any) -> dict[int, NDArray[np.float64]]:
    """Values at which the trees that see the columns themselves split, by column."""
    found: dict[int, list[NDArray[np.float64]]] = {}
    for step in _all_parts(estimator):
        for features, thresholds in _splits(step):
            for at in np.unique(features[features >= 0]):
                found.setdefault(int(at), []).append(thresholds[features == at])
    return {at: np.concatenate(values)[:5000] for at, values in found.items()}


def _splits(step: Any) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    tree = getattr(step, "tree_", None)
    if tree is not None:
        yield np.asarray(tree.feature, np.int64), np.asarray(tree.threshold, np.float64)
    for row in getattr(step, "_predictors", None) or []:
        for predictor in row:
            inner = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            yield inner["feature_idx"].astype(np.int64), inner["num_threshold"].astype(np.float64)


def _row(step: Any, name: str, width: int) -> NDArray[np.float64] | None:
    found = getattr(step, name, None)
    if not isinstance(found, np.ndarray) or found.shape != (width,) or found.dtype.kind not in "fi":
        return None
    return found.astype(np.float64)


def _vocabulary(estimator: Any) -> list[str]:
    for step in every_step(estimator):
        words = getattr(step, "vocabulary_", None)
        if isinstance(words, dict) and words:
            return [str(word) for word in list(words)[:500]]
    return ["some", "words", "of", "text"]


def every_step(estimator: Any, depth: int = 4) -> Iterator[Any]:
    """All steps of a pipeline, with those inside its column transformers."""
    for step in first_steps(estimator):
        yield step
        if depth and hasattr(step, "transformers_"):
            for _, part, _ in step.transformers_:
                if not isinstance(part, str):
                    yield from every_step(part, depth - 1)
