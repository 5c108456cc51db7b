"""The values that travel through a prediction; all frozen, all plain.

A ``PredictCall`` is what a dialect understood of a request, before routing. A ``PredictAnswer`` is
what it renders. Neither knows HTTP, Django or a database.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[np.generic]]


class Source(StrEnum):
    """Why a prediction was made."""

    API = "api"
    TRY = "try"


@dataclass(frozen=True, slots=True)
class RowInputs:
    """``{"instances": [...]}``: one JSON value per row; the answer comes back by rows."""

    rows: Sequence[Any]


@dataclass(frozen=True, slots=True)
class ColumnInputs:
    """``{"inputs": {name: [...]}}``: nested lists by input name; the answer comes by columns."""

    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TensorInputs:
    """Ready arrays by input name (binary dialects); the answer comes back by columns."""

    tensors: Tensors


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """One image as the whole question, for a model with one image input; one row answers."""

    content: bytes
    content_type: str


Inputs = RowInputs | ColumnInputs | TensorInputs | ImageInputs


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asked, as far as the record needs it.

    Attributes:
        address: Where the call came from, and ``agent`` by what program; neither stays with the
            prediction, they only tell where a key was last used.
    """

    key_id: str | None = None
    user_id: int | None = None
    address: str | None = None
    agent: str | None = None


@dataclass(frozen=True, slots=True)
class PredictCall:
    """One parsed and authorised prediction request.

    Attributes:
        model: Name (slug) of the registered model.
        environment: ``production``, ``staging`` or ``development``.
        inputs: Rows, columns, tensors or an image, not yet checked against a signature.
        deadline: ``time.monotonic()`` second after which the caller no longer waits.
        version: Version number asked for, or None for what the release says.
        alias: Alias asked for, or None.
        unit: Whom an experiment randomises, or None.
        client_id: The caller's own id, echoed and stored only.
        source: ``try`` lets any ready version answer, not only the arms of the live release.
        asker: Key and user, for the record.
        request_id: ``X-Request-ID`` of the request.
        max_rows: Rows this caller may send in one call.
        admit: Told the rows of a question that fits its signature, before anything runs; what it
            raises is the answer.
    """

    model: str
    environment: str
    inputs: Inputs
    deadline: float
    version: int | None = None
    alias: str | None = None
    unit: str | None = None
    client_id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    source: Source = Source.API
    asker: Asker = Asker()
    request_id: str = ""
    max_rows: int = 100
    admit: Callable[[int], None] | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of one prediction by stage; ``total`` counts from acceptance to the record."""

    total: float
    queue: float
    inference: float


@dataclass(frozen=True, slots=True)
class PredictAnswer:
    """What the model said, and which one it was.

    Attributes:
        outputs: Arrays by output name, in signature order.
        rows: Number of rows answered.
        by_rows: Whether the question came by rows, so the answer goes back by rows.
    """

    prediction_id: str
    model: str
    version: int
    variant: str | None
    outputs: Tensors
    rows: int
    by_rows: bool
    cached: bool
    timing: Timing
    client_id: str | None = None
