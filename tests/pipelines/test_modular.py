"""Tests modular pipelines of diffusers, with each guider that fits them."""

import math
from typing import Any

import diffusers
import pytest
import torch
from torch import nn

import fxcache
from tests.engines import num_captures, optimized_engine
from tests.pipelines.guiders import AUTO, HOOKED
from tests.pipelines.modular import KINDS, counting_captures, made

pytestmark = pytest.mark.usefixtures("shared_captures")
CASES = [(name, guider) for name, kind in KINDS.items() for guider in kind.guiders]
INTERVAL = 3


def trajectories(model: nn.Module) -> list[tuple[int, int]]:
    """Return the steps and refreshes of each trajectory since the last call of this function."""
    runs = optimized_engine(model).runs
    found = [(len(run.steps), len(run.refreshes)) for run in runs]
    runs.clear()
    return found


def optimized(targets: list[Any], interval: int) -> None:
    for target in targets:
        fxcache.optimize(target, fxcache.Uniform(interval))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("whole", [True, False], ids=["pipeline", "denoiser"])
@pytest.mark.parametrize(("name", "guider"), CASES, ids=[", ".join(case) for case in CASES])
def test_guiders(name, guider, whole, monkeypatch):
    pipe, draw, denoisers = made(name, guider)
    targets = [pipe] if whole else denoisers
    plain = draw()
    with counting_captures(monkeypatch) as counted:
        optimized(targets, 1)
        assert torch.equal(draw(), plain)
        optimized(targets, INTERVAL)
        first = draw()
        found = [trajectories(model) for model in denoisers]
        assert torch.equal(draw(), first), "the second run saw something of the first"
        assert [trajectories(model) for model in denoisers] == found
    assert not torch.equal(first, plain), "nothing was reused"
    kinds = 2 if guider in HOOKED else 1  # of calls: with hooks and without
    assert [num_captures(model) for model in denoisers] == [kinds] * len(denoisers)
    assert len(counted) == kinds * len(denoisers)
    calls = 3 if guider in HOOKED and guider != AUTO else 2  # of a step
    for runs in found:
        assert len(runs) == calls
        assert all(refreshes == math.ceil(steps / INTERVAL) for steps, refreshes in runs)


def test_a_pipeline_without_its_models_asks_for_them():
    pipe = diffusers.StableDiffusionXLModularPipeline()
    with pytest.raises(fxcache.ConfigError, match="load_components") as error:
        fxcache.optimize(pipe)
    assert "unet (NoneType)" in str(error.value)
