"""Tests captures inside modes for torch functions, such as a default device."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import fxcache
from tests.engines import num_captures
from tests.plain import DiT, dit_inputs

ALWAYS = fxcache.Uniform(1)


class Made(DiT):
    """Makes a tensor on the default device, and returns that device as a number."""

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        is_meta = float(torch.zeros(()).is_meta)
        return super().forward(sample, timestep, text) + is_meta


class Tripled(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return 3 * result if func is torch.relu else result


@torch.no_grad()
def test_a_default_device_has_captures_of_its_own():
    model, plain = fxcache.optimize(Made().eval(), ALWAYS), Made().eval()
    inputs = {**dit_inputs(), "timestep": torch.tensor(900.0)}
    for _ in range(2):
        with torch.device("meta"):
            assert torch.equal(model(**inputs), plain(**inputs))
        assert torch.equal(model(**inputs), plain(**inputs))
    assert num_captures(model) == 2


class Rectified(DiT):
    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return torch.relu(super().forward(sample, timestep, text))


@torch.no_grad()
def test_a_mode_that_changes_results_is_noticed():
    model, plain = fxcache.optimize(Rectified().eval(), ALWAYS), Rectified().eval()
    inputs = {**dit_inputs(), "timestep": torch.tensor(900.0)}
    for _ in range(2):
        with Tripled():
            assert torch.equal(model(**inputs), plain(**inputs))
        assert torch.equal(model(**inputs), plain(**inputs))
    assert num_captures(model) == 2
