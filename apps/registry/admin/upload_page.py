"""The optional fields of the upload page, which hold JSON."""

from dataclasses import dataclass

OBJECT, ANY = "object", "any"


@dataclass(frozen=True, slots=True)
class Said:
    """One field that says something of the version.

    Attributes:
        name: Name of the field at the upload door.
        sample: What an answer may look like.
        kind: ``object`` or ``any``: what its JSON must be.
        is_known: Whether the uploader knows it, or it helps the checks.
    """

    name: str
    label: str
    sample: str
    help: str
    kind: str = OBJECT
    is_known: bool = True


SAID = (
    Said(
        "metrics",
        "Metrics (JSON)",
        '{"accuracy": 0.97, "log_loss": 0.11}',
        "Numbers by name; the version's page holds them against production.",
    ),
    Said(
        "lineage",
        "Lineage (JSON)",
        '{"dataset": "orders-2026-10", "commit": "4f2c1e7"}',
        "Data set, code revision, run: where it comes from.",
    ),
    Said(
        "params",
        "Parameters (JSON)",
        '{"estimator": "LogisticRegression", "C": 1.0}',
        "What it was trained with.",
    ),
    Said("tags", "Tags (JSON)", '{"season": "autumn"}', "Words by name, for people."),
    Said(
        "example",
        "Example (JSON)",
        '{"instances": [[5.1, 3.5, 1.4, 0.2]]}',
        "One request: the trial run uses it, and people try the version with it. TorchScript needs "
        "it, or a signature.",
        kind=ANY,
        is_known=False,
    ),
    Said(
        "signature",
        "Signature (JSON)",
        '{"inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 4]}], "outputs": [...]}',
        "Column names, bounds, categories, images and class names; what is left out is read from "
        "the file.",
        is_known=False,
    ),
)
