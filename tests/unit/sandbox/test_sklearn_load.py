"""Only listed names are ever resolved, whatever wraps them."""

import importlib
import io
import pickle
import pickletools
import struct
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import all_estimators

from apps.inference.runtimes.sklearn_load import (
    ForbiddenName,
    Unloadable,
    find_listed,
    open_estimator,
)
from apps.inference.runtimes.sklearn_names import ALLOWED

X, Y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])


def _saved(folder: Path, data: bytes) -> Path:
    (folder / "model").write_bytes(data)
    return folder / "model"


def _global(module: str, name: str) -> bytes:
    """A pickle that only fetches one name, by the operation that takes any text."""

    def text(value: str) -> bytes:
        return b"\x8c" + struct.pack("<B", len(value)) + value.encode()

    return b"\x80\x04" + text(module) + text(name) + b"\x93."


FORBIDDEN = [
    ("os", "system"),
    ("posix", "system"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("builtins", "type"),
    ("builtins", "open"),
    ("subprocess", "Popen"),
    ("functools", "partial"),
    ("operator", "attrgetter"),
    ("_operator", "methodcaller"),
    ("importlib", "import_module"),
    ("runpy", "_run_code"),
    ("pickle", "loads"),
    ("numpy", "load"),
    ("numpy", "fromfile"),
    ("numpy.testing._private.utils", "runstring"),
    ("numpy.f2py.crackfortran", "getlincoef"),
    ("numpy.distutils.exec_command", "exec_command"),
    ("scipy.stats._distn_infrastructure", "rv_continuous_frozen"),
    ("joblib", "load"),
    ("joblib.memory", "Memory"),
    ("joblib.numpy_pickle_compat", "NDArrayWrapper"),
    ("sklearn.datasets", "fetch_openml"),
    ("sklearn.utils", "all_estimators"),
    ("sklearn.metrics._dist_metrics", "PyFuncDistance"),
    ("ctypes", "CDLL"),
    ("torch", "load"),
    ("codecs", "open"),
    # Dotted names walk attributes from something that is allowed.
    ("numpy", "ndarray.tofile"),
    ("sklearn.pipeline", "Pipeline.__init__.__globals__"),
    ("collections", "OrderedDict.fromkeys.__self__.__subclasses__"),
]


@pytest.mark.parametrize(("module", "name"), FORBIDDEN)
def test_a_name_that_is_not_on_the_list_is_refused_by_name(
    module: str, name: str, tmp_path: Path
) -> None:
    with pytest.raises(ForbiddenName) as caught:
        open_estimator(_saved(tmp_path, _global(module, name)))
    assert f"{module}.{name}" in caught.value.message
    assert caught.value.remedy


class Payload:
    """Writes a file when it is unpickled by anything that believes it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (str(self.target), "w")


def _as_joblib(thing: object, compress: int = 0) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(thing, buffer, compress=compress)
    return buffer.getvalue()


def _inside(payload: Payload) -> LinearRegression:
    model = LinearRegression().fit(X, Y)
    model.intercept_ = payload
    return model


def _in_object_array(payload: Payload) -> LinearRegression:
    model = LinearRegression().fit(X, Y)
    model.coef_ = np.array([payload, None], dtype=object)
    return model


@pytest.mark.parametrize("where", ["bare", "inside", "list", "object array", "compressed"])
@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_a_payload_is_not_run_wherever_it_hides(where: str, how: str, tmp_path: Path) -> None:
    payload = Payload(tmp_path / "ran")
    thing = {
        "bare": payload,
        "inside": _inside(payload),
        "list": [LinearRegression().fit(X, Y), payload],
        "object array": _in_object_array(payload),
        "compressed": _inside(payload),
    }[where]
    packed = 3 if where == "compressed" else 0
    data = pickle.dumps(thing) if how == "pickle" else _as_joblib(thing, packed)
    with pytest.raises(ForbiddenName, match=r"\.open"):
        open_estimator(_saved(tmp_path, data))
    assert not (tmp_path / "ran").exists()


def test_the_payload_of_these_tests_runs_where_nobody_stops_it(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran"))).close()
    assert (tmp_path / "ran").exists()


def test_a_skops_file_with_an_unlisted_type_is_refused(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(importlib.import_module), LinearRegression())
    skops.io.dump(model.steps[0][1], tmp_path / "model")
    with pytest.raises(ForbiddenName, match="import_module"):
        open_estimator(tmp_path / "model")


def test_every_public_estimator_of_the_installed_library_is_listed() -> None:
    public = {(kind.__module__, kind.__name__) for _, kind in all_estimators()}
    assert public <= ALLOWED


def test_every_listed_name_exists_and_is_found() -> None:
    for module, name in sorted(ALLOWED):
        assert find_listed(module, name) is not None
        assert "." not in name


def test_listed_functions_are_only_those_of_numbers_and_rebuilding() -> None:
    """A new function on the list must be looked at by a person, here."""
    kinds = {
        (module, name): find_listed(module, name)
        for module, name in ALLOWED
        if not isinstance(find_listed(module, name), type)
    }
    modules = {module for module, _ in kinds}
    assert modules <= {
        "_codecs",
        "copyreg",
        "numpy",
        "numpy._core.multiarray",
        "numpy._core.numeric",
        "numpy.ma.core",
        "numpy.random._pickle",
        "numpy.random.bit_generator",
        "scipy._lib.array_api_compat.numpy._aliases",
        "scipy.special._ufuncs",
        "sklearn._loss._loss",
        "sklearn.cluster._kmeans",
        "sklearn.feature_selection._mutual_info",
        "sklearn.feature_selection._univariate_selection",
        "sklearn.metrics._classification",
        "sklearn.metrics._dist_metrics",
        "sklearn.metrics._ranking",
        "sklearn.metrics._regression",
        "sklearn.neighbors._ball_tree",
        "sklearn.neighbors._kd_tree",
    }


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("how", ["pickle", "joblib", "compressed", "skops"])
def test_a_truncated_file_is_unloadable_in_words(how: str, share: float, tmp_path: Path) -> None:
    model = SelectKBest(k=1).fit(X, Y)
    if how == "skops":
        skops.io.dump(model, tmp_path / "model")
        data = (tmp_path / "model").read_bytes()
    else:
        data = pickle.dumps(model) if how == "pickle" else _as_joblib(model, 3 * (how != "joblib"))
    with pytest.raises(Unloadable) as caught:
        open_estimator(_saved(tmp_path, data[: int(len(data) * share)]))
    assert caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        ({"a": 1}, "a dict"),
        (np.zeros(3), "a ndarray"),
        (LogisticRegression, "the class LogisticRegression"),
        (LogisticRegression(), "has not been fitted"),
    ],
)
def test_what_is_no_fitted_estimator_is_said_to_be_something_else(
    thing: object, words: str, tmp_path: Path
) -> None:
    with pytest.raises(Unloadable, match=words):
        open_estimator(_saved(tmp_path, pickle.dumps(thing)))


def test_an_opened_model_never_starts_processes_of_its_own(tmp_path: Path) -> None:
    forest = RandomForestClassifier(2, n_jobs=-1).fit(X, Y)
    opened = open_estimator(_saved(tmp_path, pickle.dumps(make_pipeline(forest)))).estimator
    assert opened.steps[0][1].n_jobs == 1


def test_a_pickle_from_another_version_says_which(tmp_path: Path) -> None:
    data = pickle.dumps(LinearRegression().fit(X, Y), protocol=2)
    from sklearn import __version__

    other = "0" * len(__version__)
    changed = data.replace(__version__.encode(), other.encode())
    assert changed != data
    list(pickletools.genops(changed))
    assert open_estimator(_saved(tmp_path, changed)).made_with == (other,)
