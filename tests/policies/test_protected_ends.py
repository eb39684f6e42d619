"""The default policy protects both ends of a run."""

from collections.abc import Iterator
from itertools import pairwise
from math import ceil
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import fxcache
from fxcache.errors import ConfigError, FxcacheWarning, UnknownLengthError
from fxcache.step import Step
from tests import tiny
from tests.loops import refreshes, sample
from tests.policies.test_policies import refreshed

shares = st.floats(0, 1)


@pytest.mark.parametrize(
    ("steps", "schedule"),
    [
        (1, "C"),
        (2, "CC"),
        (3, "C-C"),
        (4, "C-CC"),
        (5, "C--CC"),
        (8, "C--C--CC"),
        (20, "CC--C--C--C--C--CCCC"),
        (50, "CCCCC--C--C--C--C--C--C--C--C--C--C--C--C-CCCCCCCC"),
    ],
)
def test_golden_schedules(steps, schedule):
    found = refreshed(fxcache.ProtectedEnds(), steps)
    assert found == [i for i, kind in enumerate(schedule) if kind == "C"]


@given(steps=st.integers(1, 200), interval=st.integers(1, 20), start=shares, end=shares, gap=shares)
def test_ends_refresh_and_no_gap_exceeds_its_bounds(steps, interval, start, end, gap):
    policy = fxcache.ProtectedEnds(interval, start=start, end=end, gap=gap)
    found = refreshed(policy, steps)
    first, last = ceil(start * steps), ceil(end * steps)
    assert {0, *range(first), *range(steps - last, steps)} <= set(found)
    most = min(interval, 1 + ceil(gap * steps))
    assert all(later - earlier <= most for earlier, later in pairwise([*found, steps]))


def test_first_and_last_add_to_the_shares():
    policy = fxcache.ProtectedEnds(first=6, last=5)
    assert refreshed(policy, 20) == [0, 1, 2, 3, 4, 5, 8, 11, 14, 15, 16, 17, 18, 19]


@pytest.mark.parametrize("options", [{"interval": 0}, {"start": -0.1}, {"end": 1.5}, {"gap": "a"}])
def test_impossible_options_are_errors(options):
    with pytest.raises(ConfigError):
        fxcache.ProtectedEnds(**options)


def test_without_the_length_steps_in_between_follow_the_interval():
    policy = fxcache.ProtectedEnds()
    with pytest.raises(UnknownLengthError, match="session"):
        policy.decide(Step(1, None))
    found = [i for i in range(8) if i == 0 or policy.without_length(Step(i, None)).refresh]
    assert found == [0, 3, 6]


class Plain(nn.Module):
    """A denoiser that is given its timestep as a number."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block() for _ in range(4))

    def forward(self, sample: Tensor, timestep: float) -> Tensor:
        for block in self.blocks:
            sample = block(sample)
        return sample * timestep


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


@torch.no_grad()
def numbers(model: nn.Module, steps: int) -> Iterator[Any]:
    """A loop whose timesteps are numbers: nothing tells how many follow."""
    latents = torch.ones(1, 4, 8)
    for i in range(steps):
        yield model(latents, 1.0 - i / steps)
        latents = latents * 1.01


def test_a_loop_of_unknown_length_reuses_and_is_warned_of():
    model = fxcache.optimize(Plain().eval())
    with pytest.warns(FxcacheWarning, match=r"num_steps=.*last steps|last steps.*num_steps="):
        list(numbers(model, 7))
    assert refreshes(model) == [[0, 3, 6]]
    assert any("last steps" in notice for notice in fxcache.report(model).notices)


def test_it_is_the_default_and_a_loop_over_a_schedule_needs_nothing_else():
    unet = fxcache.optimize(tiny.small_unet())
    sample(unet, 20, **tiny.inputs())
    assert refreshes(unet) == [refreshed(fxcache.ProtectedEnds(interval=3), 20)]
    assert fxcache.report(unet).notices == []
