"""Tests loops over tiles of a picture and over windows of frames: each is a trajectory."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from bench.pipelines.parts import denoiser
from tests import tiny
from tests.pipelines.windows import (
    Layout,
    Watched,
    fixed,
    halving,
    jittered,
    shuffled,
    span,
    uniform,
    windowed,
)

pytestmark = [
    pytest.mark.usefixtures("shared_captures"),
    # Windows that move are unclear calls.
    pytest.mark.filterwarnings("ignore:some calls may belong:fxcache.FxcacheWarning"),
]
SIDE, WIDTH, FRAMES = 16, 40, 12
STEPS = 8
TILES = [span(start, start + SIDE) for start in (0, 8, 16, 24)]
LAYOUTS: dict[str, Layout] = {
    "overlapping": fixed(*TILES),
    "apart": fixed(TILES[0], TILES[2]),
    "a narrow last one": fixed(span(0, 16), span(16, 32), span(32, 40)),
    "in another order at each step": shuffled(*TILES),
    "moved at each step": jittered(WIDTH, *TILES),
}


def text(seed: int = 1) -> Tensor:
    return torch.randn(1, 7, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(seed))


def noise(*shape: int, period: int = 0) -> Tensor:
    """Return noise of this shape, which repeats along the last axis with this period."""
    generator = torch.Generator().manual_seed(0)
    if not period:
        return torch.randn(shape, generator=generator)
    times = -(-shape[-1] // period)
    repeated = torch.randn(*shape[:-1], period, generator=generator).repeat_interleave(1, -1)
    return torch.cat([repeated] * times, -1)[..., : shape[-1]]


def holds(model: nn.Module, layout: Layout, start: Tensor, session: bool, **options: Any) -> int:
    """Check that no window reads another's values. Return the number of calls that reused."""
    given: Any = {"start": start, "text": text(), "steps": STEPS, **options}
    plain = windowed(Watched(model), layout, **given)
    fxcache.optimize(model, fxcache.Uniform(1))
    assert torch.equal(windowed(Watched(model), layout, **given), plain)
    results, watched = [], Watched(model)
    for _ in range(2):
        fxcache.optimize(model, fxcache.Uniform(3))
        watched = Watched(model)
        with fxcache.session(model, num_steps=STEPS) if session else nullcontext():
            results.append(windowed(watched, layout, **given))
        assert not watched.foreign
    assert torch.equal(*results), "the second run saw something of the first"
    return watched.reused


@pytest.mark.sweep(3)
@pytest.mark.parametrize("session", [False, True], ids=["", "session"])
@pytest.mark.parametrize("number", [False, True], ids=["elements", "numbers"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_tiles(name, number, session):
    reused = holds(
        tiny.small_unet(), LAYOUTS[name], noise(1, 4, SIDE, WIDTH), session, number=number
    )
    print(name, number, session, reused)
