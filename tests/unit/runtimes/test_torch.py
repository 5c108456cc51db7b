"""What PyTorch alone does: names of outputs, element types, and inputs that stay whole."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from apps.inference.engine.errors import ModelFailed
from apps.inference.runtimes.torch import TorchModel, TorchRuntime
from tests.unit.runtimes import programs

ROWS = np.array([[1, -2, 3, -4], [0.5, 0.25, 0, 1]], np.float32)


def soon() -> float:
    return time.monotonic() + 60


class Pair(NamedTuple):
    low: Tensor
    high: Tensor


class Named(nn.Module):
    def forward(self, x: Tensor) -> Pair:
        return Pair(x - 1, x + 1)


class Placed(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return x, (x + 1, x + 2)


class Nested(nn.Module):
    def forward(self, x: Tensor) -> dict[str, dict[str, Tensor]]:
        return {"a": {"b": x}}


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.bfloat16)


class WritesIntoItsInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


class KnowsOfGradients(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float(torch.is_grad_enabled())


class Words(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "no tensor"


def loaded(module: nn.Module, folder: Path) -> TorchModel:
    return TorchRuntime().load(programs.script(module, folder / "m.pt"), threads=1)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (Named(), ["low", "high"]),
        (Placed(), ["output_0", "output_1_0", "output_1_1"]),
        (Nested(), ["a.b"]),
        (programs.Scores(), ["scores", "high"]),
        (Half(), ["output_0"]),
    ],
)
def test_outputs_are_named_by_keys_and_fields_else_by_place(
    module: nn.Module, names: list[str], tmp_path: Path
) -> None:
    answer = loaded(module, tmp_path).predict({"x": ROWS}, deadline=soon())
    assert list(answer) == names


def test_a_type_that_numpy_lacks_becomes_single_precision(tmp_path: Path) -> None:
    answer = loaded(Half(), tmp_path).predict({"x": ROWS}, deadline=soon())
    assert answer["output_0"].dtype == np.float32


def test_the_callers_array_is_not_written_into(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows.flags.writeable = False
    answer = loaded(WritesIntoItsInput(), tmp_path).predict({"x": rows}, deadline=soon())
    np.testing.assert_array_equal(answer["output_0"], ROWS * 2)
    np.testing.assert_array_equal(rows, ROWS)


def test_an_answer_without_a_tensor_is_a_failed_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed) as caught:
        loaded(Words(), tmp_path).predict({"x": ROWS}, deadline=soon())
    assert "gives a str" in str(caught.value.__cause__)


def test_dropout_and_batch_statistics_are_those_of_answering(tmp_path: Path) -> None:
    model = loaded(programs.Layers(), tmp_path)
    first = model.predict({"x": ROWS}, deadline=soon())["output_0"]
    again = model.predict({"x": ROWS}, deadline=soon())["output_0"]
    np.testing.assert_array_equal(first, again)
    original = programs.Layers().eval()
    with torch.inference_mode():
        np.testing.assert_array_equal(first, original(torch.from_numpy(ROWS)).numpy())


def test_no_gradients_are_kept(tmp_path: Path) -> None:
    answer = loaded(KnowsOfGradients(), tmp_path).predict({"x": ROWS}, deadline=soon())
    np.testing.assert_array_equal(answer["output_0"], ROWS * 0)


def test_a_failure_inside_torchscript_is_said_without_its_stack(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed) as caught:
        loaded(programs.Scores(), tmp_path).predict(
            {"x": np.zeros((2, 9), np.float32)}, deadline=soon()
        )
    said = str(caught.value.__cause__)
    assert "must match the size" in said
    assert "Traceback" not in said
