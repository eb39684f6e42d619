"""Tests models that get functions with a closure, such as the mask of flex attention."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

import fxcache
from fxcache.errors import CaptureError
from tests.engines import optimized_engine
from tests.loops import refreshes

STEPS, LONG, WIDTH = 7, 128, 16


class Masked(nn.Module):
    """``forward(sample [1, 128, 16], timestep, mask)``; ``attend`` uses the mask."""

    def __init__(self, attend: Callable[[Tensor, Any], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attend = attend

    def forward(self, sample: Tensor, timestep: Tensor, mask: Any) -> Tensor:
        x = sample + timestep / 1000
        for block in self.blocks:
            x = x + self.attend(block(x).tanh(), mask)
        return x


def applied(x: Tensor, mask: SimpleNamespace) -> Tensor:
    return mask.function(x)


def attention(x: Tensor, mask: BlockMask) -> Tensor:
    x = x.unsqueeze(1)
    return flex_attention(x, x, x, block_mask=mask).squeeze(1)


def scaled(factor: Tensor, power: int) -> SimpleNamespace:
    def function(x: Tensor) -> Tensor:
        return factor * x**power

    return SimpleNamespace(function=function)


def causal(seed: int) -> BlockMask:
    """A mask that lets tokens see random earlier frames. Its function closes over a tensor."""
    frame = torch.randint(8, (LONG,), generator=torch.Generator().manual_seed(seed)).sort().values

    def mask_mod(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return frame[query] >= frame[key]

    return create_block_mask(mask_mod, None, None, LONG, LONG, device="cpu")


@torch.no_grad()
def sample(model: nn.Module, mask: Callable[[int], Any]) -> Tensor:
    latent = torch.randn(1, LONG, WIDTH, generator=torch.Generator().manual_seed(0))
    for i, t in enumerate(torch.linspace(900, 100, STEPS)):
        latent = latent - 0.1 * model(latent, t, mask(i))
    return latent


def test_each_call_may_bring_a_function_of_other_tensors():
    model = fxcache.optimize(Masked(applied).eval(), fxcache.Uniform(1))

    def mask(step: int) -> SimpleNamespace:
        return scaled(torch.tensor(0.5 + step), 1 + step % 2)

    assert torch.equal(sample(model, mask), sample(Masked(applied).eval(), mask))
    assert len(optimized_engine(model).captures) == 2, "one for each power"


def test_a_mask_of_flex_attention_closes_over_tensors():
    masks = [causal(seed) for seed in range(3)]
    model = fxcache.optimize(Masked(attention).eval(), fxcache.Uniform(1))
    plain = Masked(attention).eval()
    for mask in masks:
        constant = SimpleNamespace(get=lambda _, mask=mask: mask).get
        assert torch.equal(sample(model, constant), sample(plain, constant))
    assert len(optimized_engine(model).captures) == 1
    fxcache.optimize(model, fxcache.Uniform(3))
    sample(model, lambda _: masks[0])
    assert refreshes(model)[-1] == [0, 3, 6]


def counting() -> SimpleNamespace:
    calls = torch.zeros(1)

    def function(x: Tensor) -> Tensor:
        nonlocal calls
        calls = calls + 1
        return x * calls

    return SimpleNamespace(function=function, calls=lambda: calls)


def test_variables_that_a_function_assigns_are_assigned():
    mask, twin = counting(), counting()
    model = fxcache.optimize(Masked(applied).eval(), fxcache.Uniform(1))
    assert torch.equal(
        sample(model, lambda _: mask), sample(Masked(applied).eval(), lambda _: twin)
    )
    assert torch.equal(mask.calls(), twin.calls())
    assert mask.calls() == 4 * STEPS


def with_default(x: Tensor, factor: float = 2.0) -> Tensor:
    return factor * x


REFUSED = {
    "a default": with_default,
    "a module": nn.Identity().forward,
    "a builtin": torch.tanh,
}


@pytest.mark.parametrize("function", REFUSED.values(), ids=REFUSED.keys())
def test_functions_that_hold_more_are_refused(function):
    model = fxcache.optimize(Masked(applied).eval(), fxcache.Uniform(1))
    with pytest.raises(CaptureError, match=r"mask\.function is a"):
        sample(model, lambda _: SimpleNamespace(function=function))
