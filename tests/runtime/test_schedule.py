"""Tests that the loop of a pipeline tells the place of calls without a timestep."""

import gc
import weakref
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

import fxcache
from fxcache.runtime.schedule import Schedule
from fxcache.runtime.trajectory.position import Place
from tests.loops import refreshes

pytestmark = [
    pytest.mark.usefixtures("shared_captures"),
    pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning"),
]
STEPS = 6
PROMPT = torch.ones(1, 2, 4)


class Timeless(nn.Module):
    """``forward(latent [1, 4], prompt [1, 2, 4])``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(4))

    def forward(self, latent: Tensor, prompt: Tensor) -> Tensor:
        latent = latent + prompt.mean(1)
        for block in self.blocks:
            latent = latent + block(latent)
        return latent


class Sampler(DiffusionPipeline):
    """Its latents move so far that they do not identify a run. Its scheduler counts no steps."""

    def __init__(self, transformer: nn.Module):
        super().__init__()
        self.register_modules(transformer=transformer)
        self.scheduler = SimpleNamespace(timesteps=torch.arange(STEPS).flip(0))

    @torch.no_grad()
    def __call__(
        self,
        of: Callable[[Tensor], Iterable[Any]] = iter,
        look: Callable[[Tensor], None] = lambda latent: None,
    ) -> Tensor:
        self.scheduler.timesteps = torch.arange(STEPS).flip(0)
        for i, t in enumerate(of(self.scheduler.timesteps)):  # noqa: B007, fxcache reads t
            latent = torch.randn(1, 4, generator=torch.Generator().manual_seed(i))
            look(latent)
            latent = self.transformer(latent, PROMPT)
        return latent


class Twice(Sampler):
    """Two of its local variables are timesteps."""

    @torch.no_grad()
    def __call__(self, *_: Any, **__: Any) -> Tensor:
        last = self.scheduler.timesteps[-1]
        for t in self.scheduler.timesteps:
            latent = torch.randn(1, 4, generator=torch.Generator().manual_seed(int(t)))
            latent = self.transformer(latent, PROMPT)
        return latent + last


WHOLE = [lambda pipe: pipe, lambda pipe: pipe.transformer]


@pytest.mark.parametrize("part", WHOLE, ids=["pipeline", "module"])
def test_the_loop_tells_the_place(part):
    pipe = Sampler(Timeless().eval())
    fxcache.optimize(part(pipe), fxcache.Uniform(3))
    first = pipe()
    assert torch.equal(pipe(), first)
    assert refreshes(pipe.transformer) == [[0, 3]] * 2


@pytest.mark.parametrize("part", WHOLE, ids=["pipeline", "module"])
@pytest.mark.parametrize("of", [Tensor.tolist, Tensor.clone], ids=["numbers", "copies"])
def test_other_loops_tell_nothing(part, of):
    pipe = Sampler(Timeless().eval())
    fxcache.optimize(part(pipe), fxcache.Uniform(3))
    pipe(of)
    assert refreshes(pipe.transformer) == [[0]] * STEPS


def test_two_timesteps_tell_nothing():
    pipe = Twice(Timeless().eval())
    fxcache.optimize(pipe, fxcache.Uniform(3))
    pipe()
    assert refreshes(pipe.transformer) == [[0]] * STEPS


def test_local_variables_die_as_without_fxcache():
    pipe = Sampler(Timeless().eval())
    fxcache.optimize(pipe, fxcache.Uniform(3))
    seen: list[weakref.ref[Tensor]] = []

    def look(latent: Tensor) -> None:
        gc.collect()
        assert not any(ref() is not None for ref in seen[:-1])
        seen.append(weakref.ref(latent))

    pipe(look=look)
    assert len(seen) == STEPS


def test_the_loop_of_another_scheduler_tells_nothing():
    other = SimpleNamespace(timesteps=torch.arange(STEPS))
    found: list[Place | None] = []
    mine: list[Place | None] = []
    pipe = Sampler(Timeless().eval())

    def look(_: Tensor) -> None:
        found.append(Schedule(other).loop_place())
        mine.append(Schedule(pipe.scheduler).loop_place())

    pipe(look=look)
    assert found == [None] * STEPS
    assert mine == [Place(i, STEPS) for i in range(STEPS)]


class Tiles(Sampler):
    """Each step calls the model once for each of two tiles."""

    @torch.no_grad()
    def __call__(self, *_: Any, **__: Any) -> Tensor:
        tiles = list(torch.randn(2, 64, 4, generator=torch.Generator().manual_seed(0)))
        for t in self.scheduler.timesteps:  # noqa: B007, fxcache reads t
            tiles = [tile - 0.01 * self.transformer(tile, PROMPT) for tile in tiles]
        return torch.cat(tiles)


def test_tiles_at_one_place_are_trajectories_of_their_own():
    pipe = Tiles(Timeless().eval())
    fxcache.optimize(pipe, fxcache.Uniform(STEPS + 1))
    found = pipe()
    assert refreshes(pipe.transformer) == [[0], [0]]
    alone = [one_tile(index) for index in range(2)]
    assert torch.equal(found, torch.cat(alone))


@torch.no_grad()
def one_tile(index: int) -> Tensor:
    """Sample one of the tiles alone."""
    model = fxcache.optimize(Timeless().eval(), fxcache.Uniform(STEPS + 1))
    tile = torch.randn(2, 64, 4, generator=torch.Generator().manual_seed(0))[index]
    with fxcache.session(model):
        for _ in range(STEPS):
            tile = tile - 0.01 * model(tile, PROMPT)
    return tile
