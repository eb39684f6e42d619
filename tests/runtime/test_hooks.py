"""Tests hooks around some calls of a step: each state of hooks has its own captures."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.engines import num_captures
from tests.runtime.hooked import (
    STEPS,
    WAYS,
    Denoiser,
    Doubling,
    Scaled,
    diffusers_hook,
    latents,
    own_forward,
    post_hook,
    processor,
    sampled,
)

pytestmark = pytest.mark.usefixtures("shared_captures")


def runs(model: nn.Module) -> list[tuple[int, int]]:
    return [(r.steps, len(r.refreshes)) for r in fxcache.report(model).runs]


@pytest.mark.parametrize("way", WAYS)
def test_plain_and_hooked_refreshes_are_exact(way):
    model, plain = Denoiser().eval(), Denoiser().eval()
    fxcache.optimize(model, policy=fxcache.Uniform(1))
    for _ in range(2):  # runs
        for got, expected in zip(sampled(model, way), sampled(plain, way), strict=True):
            assert torch.equal(got, expected)
    assert num_captures(model) == 2


@pytest.mark.parametrize("way", [post_hook, own_forward, diffusers_hook, processor])
def test_plain_and_hooked_calls_reuse_side_by_side(way):
    model = fxcache.optimize(Denoiser().eval(), policy=fxcache.Uniform(3))
    sampled(model, way)
    assert runs(model) == [(STEPS, 2), (STEPS, 2)]
    assert num_captures(model) == 2


@torch.no_grad()
def test_a_switch_inside_a_hook_is_noticed():
    model, plain = Denoiser().eval(), Denoiser().eval()
    fxcache.optimize(model, policy=fxcache.Uniform(1))
    hooks = [Doubling(), Doubling()]
    for m, hook in zip((model, plain), hooks, strict=True):
        m.blocks[2].register_forward_hook(hook)
    x, text = latents(), latents(1)[:, :1]
    for t in torch.linspace(900, 100, STEPS):
        for enabled in (True, False):
            for hook in hooks:
                hook.enabled = enabled
            assert torch.equal(model(x, t, text), plain(x, t, text))
    assert num_captures(model) == 2


@torch.no_grad()
def test_a_changed_closure_variable_is_noticed():
    factor = 1.0

    def scale(_: nn.Module, args: Any, output: Tensor) -> Tensor:
        return factor * output

    model, plain = Denoiser().eval(), Denoiser().eval()
    fxcache.optimize(model, policy=fxcache.Uniform(1))
    for m in (model, plain):
        m.blocks[0].register_forward_hook(scale)
    x, text = latents(), latents(1)[:, :1]
    for t in torch.linspace(900, 100, STEPS):
        for factor in (1.0, 0.5, 2.0):  # noqa: B007, read by the hook
            assert torch.equal(model(x, t, text), plain(x, t, text))
    assert num_captures(model) == 3


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")  # six trajectories of two calls
def test_hooks_on_one_block_after_another():
    """The number of modules with a hook stays the same."""
    model, plain = Denoiser().eval(), Denoiser().eval()
    fxcache.optimize(model, policy=fxcache.Uniform(1))
    x, text = latents(), latents(1)[:, :1]
    for way in (post_hook, diffusers_hook):
        for t in torch.linspace(900, 100, 2):
            for block in range(3):
                with way(model.blocks[block]), way(plain.blocks[block]):
                    assert torch.equal(model(x, t, text), plain(x, t, text))
    assert num_captures(model) == 6


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*starts a run:fxcache.FxcacheWarning")
def test_too_many_states_of_hooks_are_warned_of():
    model, plain = Denoiser().eval(), Denoiser().eval()
    fxcache.optimize(model, policy=fxcache.Uniform(1))
    x, text, t = latents(), latents(1)[:, :1], torch.tensor(500.0)

    def call(scale: float) -> None:
        for m in (model, plain):
            m.blocks[0].processor = Scaled(scale)
        assert torch.equal(model(x, t, text), plain(x, t, text))

    for scale in range(8):
        call(float(scale))
    with pytest.warns(fxcache.FxcacheWarning, match="hooks"):
        call(8.5)
    assert num_captures(model) == 8
