"""Tests tiles of a picture and windows of frames: each is a trajectory of its own."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from bench.pipelines.check import check
from bench.pipelines.draw import draw, same
from bench.pipelines.families import animatediff
from bench.pipelines.families.stable_diffusion_variants import RECIPES as VARIANTS
from bench.pipelines.parts import clip_text, tokenizer
from bench.pipelines.recipe import PipelineRecipe
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
    # Windows that move, or that are alike, are unclear calls.
    pytest.mark.filterwarnings("ignore:some calls may belong:fxcache.FxcacheWarning"),
    pytest.mark.filterwarnings("ignore:every call starts a run:fxcache.FxcacheWarning"),
    pytest.mark.filterwarnings("ignore:a run makes more calls:fxcache.FxcacheWarning"),
]
SIDE, WIDTH, FRAMES, CONTEXT = 16, 40, 12, 4
STEPS = 7
TILES = [span(start, start + SIDE) for start in (0, 8, 16, 24)]
LAYOUTS: dict[str, Layout] = {
    "overlapping": fixed(*TILES),
    "in another order at each step": shuffled(*TILES),
    "with a narrow last one": fixed(span(0, 16), span(16, 32), span(32, 40)),
    "moved at each step": jittered(WIDTH, *TILES),
}
CONTEXTS: dict[str, Layout] = {
    "sliding": fixed(*(span(first, first + CONTEXT) for first in range(0, FRAMES - 2, 2))),
    "in a closed loop": uniform(FRAMES, CONTEXT, 2, lambda step: 0.0),
    "begun elsewhere at each step": uniform(FRAMES, CONTEXT, 2, halving),
}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def holds(model: nn.Module, layout: Layout, start: Tensor, session: bool, **options: Any) -> int:
    """Check that no window reads another's values. Return the number of calls that reused."""
    given: Any = {"start": start, "text": noise(1, 7, tiny.TEXT_WIDTH, seed=1), "steps": STEPS}
    given |= options
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


@pytest.mark.sweep(2)
@pytest.mark.parametrize("number", [False, True], ids=["elements", "numbers"])
@pytest.mark.parametrize("session", [False, True], ids=["no session", "session"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_tiles(name, session, number):
    model, start = tiny.small_unet(), noise(1, 4, SIDE, WIDTH)
    reused = holds(model, LAYOUTS[name], start, session, number=number)
    assert reused > STEPS or "moved" in name


@pytest.mark.slow
@pytest.mark.parametrize("number", [False, True], ids=["elements", "numbers"])
@pytest.mark.parametrize("session", [False, True], ids=["no session", "session"])
@pytest.mark.parametrize("name", [name for name in LAYOUTS if "moved" not in name])
def test_tiles_that_begin_alike(name, session, number):
    """The noise repeats, so that neither prompts nor latents tell the tiles apart at first."""
    start = torch.cat([noise(1, 4, SIDE, 8)] * (WIDTH // 8), -1)
    assert holds(tiny.small_unet(), LAYOUTS[name], start, session, number=number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [False, True], ids=["elements", "numbers"])
@pytest.mark.parametrize("name", CONTEXTS)
def test_context_windows(name, number):
    """Windows of frames, as loops around AnimateDiff have them."""
    model = animatediff.parts()["unet"].eval()
    text = torch.cat([noise(1, 7, tiny.TEXT_WIDTH, seed=1)] * CONTEXT)
    start = noise(1, 4, FRAMES, 8, 8)
    reused = holds(model, CONTEXTS[name], start, False, text=text, axis=2, number=number)
    assert reused > STEPS or "elsewhere" in name


def panorama(trajectories: int, **options: Any) -> PipelineRecipe:
    recipe = next(r for r in VARIANTS if r.kind == "StableDiffusionPanoramaPipeline")
    call = recipe.call
    given = {"unet": trajectories}
    return replace(recipe, call=lambda: {**call(), **options}, trajectories=given)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("windows", "options"),
    [(2, {"view_batch_size": 2}), (10, {"circular_padding": True}), (3, {"guidance_scale": 1.0})],
)
def test_panorama(windows, options):
    row = check(panorama(windows, **options))
    assert row.calls == {"unet": 7 * windows}
    assert not row.faults()


def long_video(**options: Any) -> PipelineRecipe:
    """Return AnimateDiff with FreeNoise, which attends to windows of frames inside the model."""
    recipe = animatediff.RECIPES[0]

    def build() -> Any:
        pipe = plain_video()
        free_noise(pipe, **options)
        return pipe

    return replace(recipe, build=build, call=lambda: LONG)


LONG: Mapping[str, Any] = {
    **animatediff.CLIP,
    "num_frames": 8,
    "prompt": "a cat",
    "negative_prompt": "a dog",
}


def plain_video() -> Any:
    pipe = animatediff.RECIPES[0].build()
    pipe.register_modules(text_encoder=clip_text(), tokenizer=tokenizer())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def free_noise(pipe: Any, split: bool = False, **options: Any) -> None:
    pipe.enable_free_noise(context_length=CONTEXT, context_stride=2, **options)
    if split:
        pipe.enable_free_noise_split_inference(spatial_split_size=64, temporal_split_size=4)
    pipe.unet.eval()  # the new blocks are in train mode


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"noise_type": "repeat_context"}, {"split": True}])
def test_free_noise(options):
    row = check(long_video(**options))
    assert row.calls == {"unet": 7}
    assert not row.faults()


@pytest.mark.slow
def test_free_noise_switched_on_and_off():
    recipe, pipe, other = long_video(), plain_video(), plain_video()
    off = draw(other, recipe)
    free_noise(other)
    on = draw(other, recipe)
    assert not same(on, off), "the windows must matter"
    fxcache.optimize(pipe, fxcache.Uniform(1))
    assert same(draw(pipe, recipe), off)
    free_noise(pipe)
    assert same(draw(pipe, recipe), on)
    pipe.disable_free_noise()
    pipe.unet.eval()
    assert same(draw(pipe, recipe), off)
