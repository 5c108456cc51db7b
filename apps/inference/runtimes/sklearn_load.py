"""Opens a scikit-learn file with an exact list of names; only inside a confined process.

The list is the second wall. The first is the sandbox around this process: a bug in an allowed
class's own ``__setstate__`` must not reach anything either.
"""

import bz2
import gzip
import importlib
import io
import lzma
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from joblib import numpy_pickle
from joblib.compressor import BinaryZlibFile

from apps.inference.engine.errors import ModelFailed
from apps.inference.runtimes.sklearn_names import ALLOWED, OLD_MODULES

ZIP = b"PK\x03\x04"
NOT_INSTALLED = "It was written by another version of scikit-learn, or needs another library."


class Unloadable(ModelFailed):
    """The file cannot be opened as a scikit-learn model; ``remedy`` says what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        """Keep both sentences."""
        super().__init__(message)
        self.remedy = remedy


class ForbiddenName(Unloadable):
    """The file asks for something that is not on the list."""

    def __init__(self, module: str, name: str, kind: str = "pickle") -> None:
        """Name what was asked for, in words a person can look for in the training code."""
        super().__init__(
            f"This {kind} wants {module}.{name}, which is not on the list of what a model may "
            "be made of. Nothing of it was run.",
            "Save only scikit-learn estimators, without functions or classes of your own; or "
            "export the model to ONNX.",
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """An estimator and what was noted while it was opened.

    Attributes:
        estimator: The unpickled object, shown to be a fitted estimator.
        made_with: Versions of scikit-learn that wrote it, as far as they differ from ours.
    """

    estimator: Any
    made_with: tuple[str, ...]


def open_estimator(path: Path) -> Opened:
    """Unpickle one file by the list, and see that it is one fitted estimator.

    Raises:
        Unloadable: It is not, or asks for something else.
    """
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        found = _open(path)
    _check_is_estimator(found)
    _use_one_job(found)
    versions = {str(getattr(one.message, "original_sklearn_version", "")) for one in noted}
    return Opened(found, tuple(sorted(versions - {""})))


def _check_is_estimator(found: object) -> None:
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(found, BaseEstimator):
        raise Unloadable(
            f"The file holds {_article(found)}, not a fitted scikit-learn estimator.",
            "Save the estimator or pipeline itself: joblib.dump(model, 'model.joblib').",
        )
    if not hasattr(found, "predict") and not hasattr(found, "transform"):
        raise Unloadable(
            f"A {type(found).__name__} cannot answer for new rows: it has neither predict nor "
            "transform.",
            "Save an estimator that can.",
        )
    try:
        check_is_fitted(found)
    except NotFittedError as error:
        raise Unloadable(
            f"The {type(found).__name__} has not been fitted.", "Call fit, then save it."
        ) from error


def _open(path: Path) -> object:
    try:
        with path.open("rb") as file:
            if file.read(4) == ZIP:
                return _open_skops(path)
            file.seek(0)
            with _decompressed(file) as stream:
                return _ListedUnpickler(str(path), stream, ensure_native_byte_order=True).load()
    except (Unloadable, MemoryError, RecursionError):
        raise
    except (EOFError, pickle.UnpicklingError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise Unloadable(
            "The file ends too early or is damaged: " + _words(error),
            "Save the model again and upload the whole file.",
        ) from error
    except Exception as error:
        raise Unloadable(
            "The file cannot be unpickled: " + _words(error),
            f"{NOT_INSTALLED} Save it with scikit-learn {_our_version()}, or export it to ONNX.",
        ) from error


class _ListedUnpickler(numpy_pickle.NumpyUnpickler):  # type: ignore[misc]  # joblib has no types
    """Joblib's unpickler, which also reads plain pickles; nested streams ask the same list."""

    def find_class(self, module: str, name: str) -> object:
        return find_listed(module, name)


def find_listed(module: str, name: str) -> object:
    """Resolve one exact name from the list.

    Raises:
        ForbiddenName: It is not on the list. A name with a dot in it never is: from protocol 4 on
            it walks attributes, which would lead from any class to everything.
        Unloadable: It is on the list, but not in the library installed here.
    """
    module = OLD_MODULES.get(module, module)
    if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
        return numpy_pickle.NumpyArrayWrapper
    if (module, name) not in ALLOWED:
        raise ForbiddenName(module, name)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise Unloadable(
            f"The file needs {module}.{name}, which scikit-learn {_our_version()} does not have.",
            f"{NOT_INSTALLED} Train it again with scikit-learn {_our_version()}.",
        ) from error


def _open_skops(path: Path) -> object:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    trusted = [f"{module}.{name}" for module, name in sorted(ALLOWED)]
    try:
        unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - set(trusted))
        if unknown:
            module, _, name = str(unknown[0]).rpartition(".")
            raise ForbiddenName(module, name, "skops file")
        return skops.io.load(path, trusted=trusted)
    except UntrustedTypesFoundException as error:
        raise Unloadable(
            "This skops file wants types that are not on the list: " + _words(error),
            "Save only scikit-learn estimators, or export the model to ONNX.",
        ) from error


@contextmanager
def _decompressed(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """See through the compressions that joblib writes."""
    head = file.read(6)
    file.seek(0)
    stream: Any = file
    if head.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=file)
    elif head[:1] == b"\x78":
        stream = BinaryZlibFile(file, "rb")
    elif head.startswith(b"BZh"):
        stream = bz2.BZ2File(file)
    elif head.startswith((b"\xfd7zXZ", b"\x5d\x00\x00")):
        stream = lzma.LZMAFile(file)  # noqa: SIM115  closed with the file below it
    elif head.startswith(b"\x04\x22\x4d\x18"):
        raise Unloadable(
            "The file is compressed with lz4, which is not read here.",
            "Save it with joblib.dump(model, file, compress=('zlib', 3)).",
        )
    yield stream if stream is file else io.BufferedReader(stream, 1 << 20)


def _use_one_job(estimator: Any) -> None:
    """Keep joblib from starting processes, which this process may not."""
    if not hasattr(estimator, "get_params"):
        return
    names = [name for name in estimator.get_params(deep=True) if name.endswith("n_jobs")]
    estimator.set_params(**{name: 1 for name in names if name.split("__")[-1] == "n_jobs"})


def _article(found: object) -> str:
    if isinstance(found, type):
        return f"the class {found.__name__}"
    return f"a {type(found).__name__}"


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _our_version() -> str:
    import sklearn

    return str(sklearn.__version__)
