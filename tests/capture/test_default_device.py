"""Tests captures under a default device, and inside a mode that watches."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import fxcache
from tests.engines import num_captures, optimized_engine
from tests.loops import refreshes
from tests.plain import DiT, dit, dit_inputs

ALWAYS = fxcache.Uniform(1)


class Made(DiT):
    """Makes a tensor on the default device, and returns that device as a number."""

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        is_meta = float(torch.zeros(()).is_meta)
        return super().forward(sample, timestep, text) + is_meta


@torch.no_grad()
def test_a_default_device_has_captures_of_its_own():
    model, plain = fxcache.optimize(Made().eval(), ALWAYS), Made().eval()
    inputs = {**dit_inputs(), "timestep": torch.tensor(900.0)}
    for _ in range(2):
        with torch.device("meta"):
            assert torch.equal(model(**inputs), plain(**inputs))
        assert torch.equal(model(**inputs), plain(**inputs))
    assert num_captures(model) == 2


@torch.no_grad()
def test_a_default_device_that_changes_nothing_shares_the_capture():
    model, inputs = fxcache.optimize(dit(), fxcache.Uniform(3)), dit_inputs()
    with fxcache.session(model, num_steps=4):
        for step in range(4):
            with torch.device("cpu") if step else nullcontext():
                model(timestep=torch.tensor(900.0 - step), **inputs)
    assert num_captures(model) == 1
    assert refreshes(model) == [[0, 3]]


class Watching(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_a_mode_that_watches_causes_no_trace():
    model, inputs = fxcache.optimize(dit(), fxcache.Uniform(1)), dit_inputs()
    model(timestep=torch.tensor(900.0), **inputs)
    before = optimized_engine(model).graphs.capture_s
    with Watching():
        model(timestep=torch.tensor(800.0), **inputs)
    assert optimized_engine(model).graphs.capture_s == before
