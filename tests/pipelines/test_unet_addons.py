"""Tests settings of denoisers that change between runs, and options of pipelines."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

import fxcache
from bench.pipelines.parts import noise
from fxcache.runtime.module import engine_of
from tests.engines import optimized_engine
from tests.pipelines.build import (
    EVERY_THIRD,
    SD_PROMPT,
    Made,
    drawing,
    flux,
    follows,
    follows_each_call,
    keeps,
    optimised,
    runs,
    stable_diffusion,
)

pytestmark = pytest.mark.usefixtures("shared_captures")

MODELS = pytest.mark.parametrize("made", [stable_diffusion, flux])


class Doubling:
    """A user's attention processor, whose setting may change."""

    def __init__(self, factor: float):
        self.factor, self.inner = factor, AttnProcessor2_0()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.factor * self.inner(*args, **kwargs)


def with_doubling() -> Made:
    model, draw, pipe = stable_diffusion()
    model.set_attn_processor(Doubling(1.5))
    return model, draw, pipe


def with_freeu() -> Made:
    model, draw, pipe = stable_diffusion()
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    return model, draw, pipe


def other_factor(pipe: Any) -> None:
    for processor in pipe.unet.attn_processors.values():
        processor.factor = 2.0


CHANGES = {
    "processor": (stable_diffusion, lambda p: p.unet.set_attn_processor(Doubling(2.0))),
    "its setting": (with_doubling, other_factor),
    "default processor": (with_doubling, lambda p: p.unet.set_attn_processor(AttnProcessor2_0())),
    "freeu": (stable_diffusion, lambda p: p.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)),
    "other freeu": (with_freeu, lambda p: p.enable_freeu(s1=0.5, s2=0.5, b1=1.1, b2=1.1)),
    "no freeu": (with_freeu, lambda p: p.disable_freeu()),
}


@pytest.mark.sweep(1)
@pytest.mark.parametrize("change", CHANGES)
def test_changed_between_runs(change):
    follows(*CHANGES[change])


EXACT = {
    "AttnProcessor": lambda p: p.unet.set_attn_processor(AttnProcessor()),
    "attention slicing": lambda p: p.enable_attention_slicing(1),
    "fused projections": lambda p: p.fuse_qkv_projections(),
}


@pytest.mark.sweep(1)
@pytest.mark.parametrize("change", EXACT)
def test_other_ways_to_the_same_values(change):
    model, draw, pipe = stable_diffusion()
    fxcache.optimize(model, policy=fxcache.Uniform(interval=1))
    draw()
    EXACT[change](pipe)
    changed = draw()
    fxcache.restore(model)
    assert torch.equal(draw(), changed)
    keeps(draw, model)


def test_unfused_projections():
    model, draw, pipe = stable_diffusion()
    with optimised(model, interval=1):
        expected = draw()
        pipe.fuse_qkv_projections()
        draw()
        pipe.unfuse_qkv_projections()
        assert torch.equal(draw(), expected)


def test_fused_projections_of_a_transformer():
    model, draw, _ = flux()
    model.fuse_qkv_projections()
    keeps(draw, model)


@pytest.mark.sweep(1)
@MODELS
def test_gradient_checkpointing(made):
    model, draw, _ = made()
    model.enable_gradient_checkpointing()
    keeps(draw, model)


@pytest.mark.sweep(1)
@MODELS
@pytest.mark.usefixtures("clean_dynamo")
def test_compiled_blocks(made):
    model, draw, _ = made()
    model.compile_repeated_blocks(backend="eager")
    keeps(draw, model)


@pytest.mark.parametrize("enabled_first", [True, False], ids=["before", "after"])
def test_a_cache_of_diffusers_own_is_refused(enabled_first):
    model, draw, _ = flux()
    config = diffusers.FirstBlockCacheConfig(threshold=100.0)
    fxcache.optimize(model)
    if enabled_first:
        fxcache.restore(model)
    model.enable_cache(config)
    with pytest.raises(fxcache.FxcacheError):
        optimised_if_not_yet(model, draw)


def optimised_if_not_yet(model: Any, draw: Any) -> None:
    if engine_of(model) is None:
        fxcache.optimize(model)
    draw()


@pytest.mark.sweep(1)
@pytest.mark.parametrize("method", ["enable_slicing", "enable_tiling"])
def test_vae_options(method):
    model, draw, pipe = stable_diffusion(output_type="pt", num_images_per_prompt=2)
    getattr(pipe.vae, method)()
    keeps(draw, model)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_guidance_rescale(rescale):
    model, draw, _ = stable_diffusion(guidance_rescale=rescale)
    keeps(draw, model)


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("made", "at"),
    [
        *((made, at) for made in (stable_diffusion, flux) for at in (0, 1, 4)),
    ],
)
def test_an_interrupted_run_leaves_nothing_behind(made, at):
    model, draw, _ = made()

    def interrupt(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step >= at
        return values

    with optimised(model):
        expected = draw()
        draw(callback_on_step_end=interrupt)
        runs(model)
        assert torch.equal(draw(), expected)
        assert runs(model) == [EVERY_THIRD]


@pytest.mark.sweep(1)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_guidance_that_ends_halves_the_batch(after):
    model, draw, _ = stable_diffusion()

    def end(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == after:
            pipe._guidance_scale = 1.0
            values["prompt_embeds"] = values["prompt_embeds"][-1:]
        return values

    def ending() -> torch.Tensor:
        return draw(callback_on_step_end=end, callback_on_step_end_tensor_inputs=["prompt_embeds"])

    with_guidance, without = after + 1, 6 - after
    expected = [list(range(0, with_guidance, 3)), list(range(0, without, 3))]
    keeps(ending, model, expected=expected)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_prompt_replaced_in_the_middle_of_a_run(after):
    model, draw, _ = stable_diffusion()

    def replace(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == after:
            values["prompt_embeds"] = noise(2, 7, 32, seed=9)
        return values

    def replacing() -> torch.Tensor:
        return draw(
            callback_on_step_end=replace, callback_on_step_end_tensor_inputs=["prompt_embeds"]
        )

    plain = replacing()
    with optimised(model, interval=1):
        assert torch.equal(replacing(), plain)
    with optimised(model):
        replacing()
        calls = [s.decision for run in optimized_engine(model).runs for s in run.steps]
        assert calls[after + 1].refresh, "the new prompt's first step must be computed"


def pag() -> Made:
    pipe = diffusers.AutoPipelineForText2Image.from_pipe(
        stable_diffusion()[2], enable_pag=True, pag_applied_layers=["up"]
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.unet, drawing(pipe, **SD_PROMPT, pag_scale=3.0), pipe


def test_pag():
    model, draw, _ = pag()
    keeps(draw, model)


def test_pag_switched_on_and_off():
    model, draw, _ = pag()
    follows_each_call(draw, model, "pag_scale", (3.0, 0.0))
