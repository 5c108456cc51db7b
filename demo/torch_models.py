"""Trains the demo's two PyTorch models: one that becomes ONNX and one that stays PyTorch.

``tumour`` leaves as an exported program (``.pt2``), which the platform converts. ``progression``
answers with an interval from a Gaussian process, which solves a triangular system for each
question. ONNX has no operator for that, so its TorchScript is served by a runner.
"""

import hashlib
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from demo.files import Trained, examples

SEED = 20
HOLD_OUT = 0.25
ROUNDS = 120
FIT_ROUNDS = 60
LEARNING_RATE = 1e-2
FIT_RATE = 0.1
WEIGHT_DECAY = 1e-2
HIDDEN = 16
# 90 % of a normal distribution lies within this many deviations of its mean.
REACH = 1.6449
# Without the shortcut over matrix products, whose rounding depends on the rows beside a row.
EXACT = "donot_use_mm_for_euclid_dist"

Numbers = NDArray[np.float64]


class Tumour(nn.Module):
    """Two layers on standardised measurements; gives the chance that a tumour is malignant."""

    centre: Tensor
    spread: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", rows.mean(0))
        self.register_buffer("spread", rows.std(0))
        self.layers = nn.Sequential(
            nn.Linear(rows.shape[1], HIDDEN), nn.ReLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, 1)
        )

    def logits(self, measurements: Tensor) -> Tensor:
        """Give the log-odds, which training is steadier with."""
        answer: Tensor = self.layers((measurements - self.centre) / self.spread)
        return answer.squeeze(1)

    def forward(self, measurements: Tensor) -> dict[str, Tensor]:
        return {"malignant": torch.sigmoid(self.logits(measurements))}


class Progression(nn.Module):
    """A Gaussian process; gives what it expects and the interval that holds nine cases of ten."""

    centre: Tensor
    spread: Tensor
    level: Tensor
    size: Tensor
    known: Tensor
    wanted: Tensor
    scales: Tensor
    noise: Tensor
    factor: Tensor
    weights: Tensor

    def __init__(self, rows: Tensor, targets: Tensor) -> None:
        super().__init__()
        self.reach, self.exact = REACH, EXACT  # a script sees what its module holds
        self.register_buffer("centre", rows.mean(0))
        self.register_buffer("spread", rows.std(0))
        self.register_buffer("level", targets.mean())
        self.register_buffer("size", targets.std())
        self.register_buffer("known", (rows - rows.mean(0)) / rows.std(0))
        self.register_buffer("wanted", (targets - targets.mean()) / targets.std())
        self.register_buffer("scales", torch.full((rows.shape[1],), 3.0, dtype=rows.dtype))
        self.register_buffer("noise", torch.tensor(0.5, dtype=rows.dtype))
        self.register_buffer("factor", torch.eye(len(rows), dtype=rows.dtype))
        self.register_buffer("weights", torch.zeros(len(rows), 1, dtype=rows.dtype))

    def fit(self) -> None:
        """Choose scales and noise by the likelihood of what is known, then solve once."""
        logs = [self.scales.log().requires_grad_(), self.noise.log().requires_grad_()]
        steps = torch.optim.Adam(logs, lr=FIT_RATE)
        for _ in range(FIT_ROUNDS):
            steps.zero_grad()
            self._surprise(logs[0].exp(), logs[1].exp()).backward()  # type: ignore[no-untyped-call]  # PyTorch says no types
            steps.step()
        self.scales, self.noise = logs[0].exp().detach(), logs[1].exp().detach()
        self.factor = self._factor(self.scales, self.noise)
        self.weights = torch.cholesky_solve(self.wanted[:, None], self.factor)

    def _factor(self, scales: Tensor, noise: Tensor) -> Tensor:
        near = self.known / scales
        sizes = near.square().sum(1)
        gaps = (sizes[:, None] + sizes[None] - 2 * near @ near.T).clamp_min(0)
        alike = torch.exp(-0.5 * gaps)
        factor: Tensor = torch.linalg.cholesky(
            alike + noise * torch.eye(len(near), dtype=near.dtype)
        )
        return factor

    def _surprise(self, scales: Tensor, noise: Tensor) -> Tensor:
        """Negative log likelihood, up to a constant (Rasmussen and Williams 2006, eq. 5.8)."""
        factor = self._factor(scales, noise)
        weights = torch.cholesky_solve(self.wanted[:, None], factor)
        return 0.5 * (self.wanted @ weights[:, 0]) + factor.diagonal().log().sum()

    def forward(self, visit: Tensor) -> dict[str, Tensor]:
        asked = (visit - self.centre) / self.spread / self.scales
        gaps = torch.cdist(asked, self.known / self.scales, compute_mode=self.exact)
        alike = torch.exp(-0.5 * gaps * gaps)
        explained = torch.linalg.solve_triangular(self.factor, alike.T, upper=False)
        mean = self.level + self.size * (alike @ self.weights)[:, 0]
        left = 1.0 + self.noise - (explained * explained).sum(0)
        reach = self.reach * self.size * torch.sqrt(left)
        return {"progression": mean, "low": mean - reach, "high": mean + reach}


def tumour() -> Trained:
    """Tell malignant from benign tumours by 30 measurements of their cells."""
    data = load_breast_cancer()
    parts = train_test_split(
        data.data, data.target == 0, test_size=HOLD_OUT, random_state=SEED, stratify=data.target
    )
    rows, held_rows, labels, held_labels = parts
    model = _trained(torch.tensor(rows, dtype=torch.float32), torch.tensor(labels))
    with torch.inference_mode():
        chances = model(torch.tensor(held_rows, dtype=torch.float32))["malignant"].numpy()
    return Trained(
        name="tumour",
        filename="tumour.pt2",
        content=_exported(model, torch.tensor(rows[:2], dtype=torch.float32)),
        description=(
            "# Tumour\n\nGives the chance that a tumour of the breast is malignant, from 30 "
            "measurements of its cells.\n\nTwo layers in PyTorch, saved with `torch.export` and "
            "served as ONNX."
        ),
        metrics={
            "accuracy": float(accuracy_score(held_labels, chances > 0.5)),
            "log_loss": float(log_loss(held_labels, chances.astype(np.float64))),
        },
        params={
            "hidden": HIDDEN,
            "rounds": ROUNDS,
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
        },
        tags={"origin": "demo", "task": "classification"},
        lineage=_lineage("load_breast_cancer", data.data, data.target, len(rows)),
        example=examples()["tumour"],
        signature={
            "inputs": [
                {
                    "name": "measurements",
                    "dtype": "float32",
                    "shape": [-1, data.data.shape[1]],
                    "columns": [str(name) for name in data.feature_names],
                }
            ],
            "outputs": [
                {"name": "malignant", "dtype": "float32", "shape": [-1], "minimum": 0, "maximum": 1}
            ],
        },
    )


def _trained(rows: Tensor, labels: Tensor) -> Tumour:
    torch.manual_seed(SEED)
    model = Tumour(rows)
    wanted = labels.float()
    steps = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    with _one_thread():
        for _ in range(ROUNDS):
            steps.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(model.logits(rows), wanted).backward()  # type: ignore[no-untyped-call]  # PyTorch says no types
            steps.step()
    return model.eval()


def _exported(model: nn.Module, example: Tensor) -> bytes:
    rows = torch.export.Dim("rows")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making
        program = torch.export.export(model, (example,), dynamic_shapes=({0: rows},))
        file = io.BytesIO()
        torch.export.save(program, file)
    return file.getvalue()


def progression() -> Trained:
    """Foresee the progression of diabetes, and how sure that is."""
    data = load_diabetes(scaled=False)
    parts = train_test_split(data.data, data.target, test_size=HOLD_OUT, random_state=SEED)
    rows, held_rows, targets, held_targets = parts
    model = Progression(torch.tensor(rows), torch.tensor(targets))
    with _one_thread():
        model.fit()
    with torch.inference_mode():
        answer = {name: one.numpy() for name, one in model(torch.tensor(held_rows)).items()}
    return Trained(
        name="progression",
        filename="progression.pt",
        content=_scripted(model.eval()),
        description=(
            "# Progression\n\nForesees the progression of diabetes one year after a visit, with "
            "an interval that holds nine cases of ten.\n\nA Gaussian process in PyTorch, saved as "
            "TorchScript. ONNX cannot say the triangular system that it solves for each question, "
            "so PyTorch itself answers, in a process of its own."
        ),
        metrics=_judged(answer, held_targets),
        params={"kernel": "squared exponential, a scale per column", "fit_rounds": FIT_ROUNDS},
        tags={"origin": "demo", "task": "regression"},
        lineage=_lineage("load_diabetes", data.data, data.target, len(rows)),
        example=examples()["progression"],
        signature={
            "inputs": [
                {
                    "name": "visit",
                    "dtype": "float64",
                    "shape": [-1, data.data.shape[1]],
                    "columns": [str(name) for name in data.feature_names],
                }
            ],
            "outputs": [
                {"name": name, "dtype": "float64", "shape": [-1]}
                for name in ("progression", "low", "high")
            ],
        },
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small matrices: threads that wait for each other cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _judged(answer: Mapping[str, Numbers], targets: Numbers) -> dict[str, float]:
    within = (answer["low"] <= targets) & (targets <= answer["high"])
    return {
        "r2": float(r2_score(targets, answer["progression"])),
        "mean_absolute_error": float(mean_absolute_error(targets, answer["progression"])),
        "share_within_interval": float(within.mean()),
    }


def _scripted(model: nn.Module) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(model), file)
    return file.getvalue()


def _lineage(loader: str, rows: Any, labels: Any, trained_on: int) -> dict[str, Any]:
    digest = hashlib.sha256(rows.tobytes() + labels.tobytes()).hexdigest()
    return {
        "code": "demo/torch_models.py",
        "data": f"sklearn.datasets.{loader}",
        "data_sha256": digest,
        "rows": {"trained": trained_on, "held_out": len(rows) - trained_on},
        "seed": SEED,
        "torch": torch.__version__,
    }
