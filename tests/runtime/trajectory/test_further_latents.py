"""Tests that a model may have several latents, and that a changed prompt is still noticed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.runtime.trajectory.further_latents import FurtherLatents
from tests.loops import last_reason, refreshes

pytestmark = pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
STEPS = 7


class Joint(nn.Module):
    """Denoises two latents: ``forward(sample [1, 4, 8], prompt_embeds [1, 3, 8], timestep)``."""

    def __init__(self, results: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(4))
        self.results = results

    def forward(self, sample: Tensor, prompt_embeds: Tensor, timestep: Tensor) -> Any:
        x = torch.cat([sample, prompt_embeds], 1) + timestep / 1000
        for block in self.blocks:
            x = x + block(x)
        return self.results(x[:, :4], x[:, 4:])


def both(sample: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    return sample, text


def of_another_shape(sample: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    return sample, text.mean(1)


def only_first(sample: Tensor, text: Tensor) -> tuple[Tensor]:
    return (sample + text.mean(),)


@torch.no_grad()
def run(
    model: nn.Module,
    moves: Callable[[int], bool],
    timesteps: Any = None,
    write: Callable[[Tensor, Tensor], Tensor] = lambda old, new: new,
) -> None:
    """Sample; the second latent moves before the steps that ``moves`` names."""
    torch.manual_seed(0)
    sample, text = torch.randn(1, 4, 8), torch.randn(1, 3, 8)
    for i, t in enumerate(torch.linspace(900, 100, STEPS) if timesteps is None else timesteps):
        if i and moves(i):
            text = write(text, text + 0.1 * torch.randn(1, 3, 8))
        sample = sample - 0.01 * model(sample, text, t)[0]


def optimized(results: Callable[[Tensor, Tensor], Any]) -> nn.Module:
    return fxcache.optimize(Joint(results).eval(), fxcache.Uniform(3))


def always(step: int) -> bool:
    return True


@pytest.mark.parametrize("write", [lambda old, new: new, Tensor.copy_], ids=["new", "in place"])
def test_a_second_latent_may_change_at_every_step(write):
    model = optimized(both)
    for _ in range(2):
        with fxcache.session(model):
            run(model, always, write=write)
    assert refreshes(model) == [[0, 1, 3, 6]] * 2, "the first change shows that it is a latent"


@pytest.mark.parametrize("results", [only_first, of_another_shape])
def test_a_prompt_without_a_result_is_no_latent(results):
    model = optimized(results)
    with fxcache.session(model):
        run(model, always)
    assert refreshes(model) == [list(range(STEPS))]
    assert last_reason(model) == "conditioning changed"


@pytest.mark.parametrize("first", [2, 3, 5])
def test_a_prompt_that_stayed_is_no_latent(first):
    model = optimized(both)
    with fxcache.session(model):
        run(model, lambda step: step >= first)
    assert refreshes(model) == [sorted({0, 3, 6} | set(range(first, STEPS)))]


def test_a_prompt_of_another_caller_is_no_latent():
    model, kept = optimized(both), []

    def keep(old: Tensor, new: Tensor) -> Tensor:
        kept.append(old)
        return new

    with fxcache.session(model):
        run(model, always, write=keep)
    assert refreshes(model) == [[0]] * STEPS


def test_each_latent_of_a_list_has_a_result():
    first, second, text = torch.zeros(1, 4), torch.zeros(1, 4), torch.zeros(2, 3)
    found = FurtherLatents().with_results([first, second], [first, second, None])
    assert found.shapes == ()
    assert FurtherLatents().with_results([first], [first, second, text]).shapes == ((1, 4), (2, 3))


def test_without_a_proof_that_the_run_is_one_every_step_refreshes():
    model = optimized(both)
    run(model, always, timesteps=torch.linspace(900, 100, STEPS).tolist())
    assert refreshes(model) == [list(range(STEPS))]
