"""Trains the demo's image model: handwritten digits, asked by PNG or JPEG file.

A small convolutional network in PyTorch leaves as ONNX. How a file becomes its numbers, and what
its ten scores are called, is said in the signature that goes with it, so that a caller sends an
image and gets a name.
"""

import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from torch import nn

from demo.files import Trained, examples

SEED = 20
HOLD_OUT = 0.25
SIDE = 8
EPOCHS = 15
BATCH_ROWS = 64
LEARNING_RATE = 2e-3
OPSET = 18
INPUT, OUTPUT = "image", "probabilities"
CLASSES = [str(digit) for digit in range(10)]
SIGNATURE = {
    "inputs": [
        {
            "name": INPUT,
            "dtype": "float32",
            "shape": [-1, 1, SIDE, SIDE],
            "image": {
                "mode": "grey",
                "height": SIDE,
                "width": SIDE,
                "resampling": "box",
                "layout": "nchw",
                "scale": 1 / 255,
                "mean": [0.5],
                "std": [0.5],
            },
        }
    ],
    "outputs": [{"name": OUTPUT, "dtype": "float32", "shape": [-1, 10], "classes": CLASSES}],
}

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Digits:
    """White digits on black as pixels of shape ``(rows, 8, 8)``, part seen, part held out."""

    pixels: Pixels
    labels: Labels
    held_pixels: Pixels
    held_labels: Labels


def load() -> Digits:
    """Read the data set and split it, always the same way."""
    data = load_digits()
    pixels = np.round(data.images * 255 / 16).astype(np.uint8)
    seen, held, labels, held_labels = train_test_split(
        pixels, data.target, test_size=HOLD_OUT, random_state=SEED, stratify=data.target
    )
    return Digits(seen, labels, held, held_labels)


def png_of(pixels: Pixels) -> bytes:
    """Write one digit as a PNG file."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, format="PNG")
    return written.getvalue()


def rows_of(pixels: Pixels) -> NDArray[np.float32]:
    """Return what the network takes, of shape ``(rows, 1, 8, 8)``, from -1 to 1."""
    scaled = pixels.astype(np.float32)[:, np.newaxis] * np.float32(1 / 255)
    normal: NDArray[np.float32] = (scaled - np.float32(0.5)) / np.float32(0.5)
    return normal


def digits() -> Trained:
    """Tell the ten digits apart by an image of 8 x 8 pixels."""
    data = load()
    network = _trained(data)
    with torch.inference_mode():
        said = network(torch.from_numpy(rows_of(data.held_pixels))).double().numpy()
    said /= said.sum(axis=1, keepdims=True)  # what rounding to single precision took
    return Trained(
        name="digits",
        filename="digits.onnx",
        content=_onnx(network),
        description=(
            "# Digits\n\nReads a handwritten digit from a PNG or JPEG file: white on black, "
            "brought to 8 x 8 pixels.\n\nA convolutional network in PyTorch, exported as ONNX."
        ),
        metrics={
            "accuracy": float(accuracy_score(data.held_labels, said.argmax(axis=1))),
            "log_loss": float(log_loss(data.held_labels, said)),
        },
        params={"epochs": EPOCHS, "learning_rate": LEARNING_RATE, "batch_rows": BATCH_ROWS},
        tags={"origin": "demo", "task": "classification", "input": "image"},
        lineage={
            "code": "demo/digits.py",
            "data": "sklearn.datasets.load_digits",
            "data_sha256": hashlib.sha256(
                data.pixels.tobytes() + data.held_pixels.tobytes()
            ).hexdigest(),
            "rows": {"trained": len(data.pixels), "held_out": len(data.held_pixels)},
            "seed": SEED,
            "torch": torch.__version__,
        },
        example=examples()["digits"],
        signature=SIGNATURE,
    )


def _trained(data: Digits) -> nn.Module:
    """Fit the network; the process' own random numbers are left as they were."""
    rows, labels = torch.from_numpy(rows_of(data.pixels)), torch.from_numpy(data.labels)
    with torch.random.fork_rng(), _one_thread():
        torch.manual_seed(SEED)
        scores = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * (SIDE // 2) ** 2, 64),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(64, len(CLASSES)),
        )
        steps = torch.optim.Adam(scores.parameters(), lr=LEARNING_RATE)
        for _ in range(EPOCHS):
            for chosen in torch.split(torch.randperm(len(rows)), BATCH_ROWS):
                steps.zero_grad()
                loss = nn.functional.cross_entropy(scores(rows[chosen]), labels[chosen])
                loss.backward()  # type: ignore[no-untyped-call]  # PyTorch says no types here
                steps.step()
    return nn.Sequential(scores, nn.Softmax(dim=1)).eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Work this small is slower in several threads, much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _onnx(network: nn.Module) -> bytes:
    example = torch.zeros(2, 1, SIDE, SIDE)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision aloud
    with warnings.catch_warnings():  # of PyTorch about its own parts
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            external_data=False,
        )
    if made is None:
        raise RuntimeError("PyTorch exported nothing.")
    content: Any = made.model_proto.SerializeToString()
    return bytes(content)
