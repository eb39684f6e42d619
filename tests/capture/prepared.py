"""A denoiser that prepares its input with a given function, to test what can be captured."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.capture.capture import capture
from fxcache.program import Program
from fxcache.rewrite.graph_module import graph_module
from fxcache.signature import Signature

Prepare = Callable[[Tensor, Tensor], Tensor]


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x + torch.tanh(self.linear(x)) + t / 1000


class Prepared(nn.Module):
    """``forward(x [B, 8, 4], t [])`` -> ``[B, 8, 4]``: ``prepare(x, t)``, then four layers."""

    def __init__(self, prepare: Prepare) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.prepare = prepare
        self.layers = nn.ModuleList(Layer() for _ in range(4))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = self.prepare(x, t)
        for layer in self.layers:
            x = layer(x, t)
        return x


def calls() -> list[tuple[Tensor, Tensor]]:
    """Return two steps of a run, with different latents and timesteps."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(1, 8, 4, generator=generator), torch.tensor(t)) for t in (900.0, 400.0)]


def captured(model: nn.Module, *args: Any, **kwargs: Any) -> Program:
    """Capture one call of ``model``."""
    signature = Signature(type(model))
    return capture(model, signature, signature.call(args, kwargs))


@torch.no_grad()
def assert_same_bits(model: nn.Module, plain: nn.Module, inputs: list[Any]) -> None:
    """Check that the graph of the first call gives the bits of ``plain`` for each call."""
    program = captured(model, *inputs[0])
    graph = graph_module(program.graph, program.weights, "Captured", {})
    for call in inputs:
        (found,) = graph(*call)
        assert torch.equal(found, plain(*call))


def assert_exact(prepare: Prepare) -> None:
    """Check that the graph of the first step gives the bits of the plain module at each step."""
    assert_same_bits(Prepared(prepare).eval(), Prepared(prepare).eval(), calls())


@torch.no_grad()
def refusal(prepare: Prepare) -> fxcache.CaptureError:
    """Return the error of a model that cannot be captured."""
    with pytest.raises(fxcache.CaptureError) as caught:
        captured(Prepared(prepare).eval(), *calls()[0])
    return caught.value
