"""Tests ``optimize(pipe)`` on pipelines of diffusers: refreshes are exact, and steps reuse."""

from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.runtime.module import engine_of
from tests import tiny
from tests.loops import refreshes
from tests.pipelines.build import (
    EVERY_THIRD,
    flux,
    sd3,
    stable_diffusion,
)

pytestmark = pytest.mark.usefixtures("shared_captures")


@pytest.mark.sweep(2)
@pytest.mark.parametrize("made", [stable_diffusion, flux, sd3])
def test_exact_and_reusing(made):
    model, draw, pipe = made()
    plain = draw()
    fxcache.optimize(pipe, fxcache.Uniform(1))
    assert torch.equal(draw(), plain)
    fxcache.optimize(pipe, fxcache.Uniform(3))
    first = draw()
    assert torch.equal(draw(), first), "the second run saw something of the first"
    assert refreshes(model)[-1] == EVERY_THIRD
    assert not torch.equal(first, plain), "nothing was reused"
    fxcache.restore(pipe)
    assert torch.equal(draw(), plain)


def test_a_session_around_the_pipelines_call():
    model, draw, pipe = stable_diffusion()
    fxcache.optimize(pipe, fxcache.Uniform(3))
    expected = draw()
    with fxcache.session(model, num_steps=7):
        assert torch.equal(draw(), expected)
    assert refreshes(model) == [EVERY_THIRD] * 2


def test_whole_model_offload():
    """The components are hooked as by enable_model_cpu_offload, which needs an accelerator."""
    model, draw, pipe = stable_diffusion()
    fxcache.optimize(pipe, fxcache.Uniform(3))
    expected = draw()
    for component in (pipe.text_encoder, pipe.unet, pipe.vae):
        accelerate.cpu_offload_with_hook(component, execution_device=torch.device("cpu"))
    assert torch.equal(draw(), expected)
    fxcache.optimize(pipe, fxcache.Uniform(3))
    assert torch.equal(draw(), expected)
    assert refreshes(model) == [EVERY_THIRD]
    pipe.remove_all_hooks()
    assert torch.equal(draw(), expected)


def test_controlnets_are_left_alone():
    from diffusers import StableDiffusionControlNetPipeline

    pipe = tiny.pipeline()
    control = tiny.controlnet(pipe.unet)
    pipe = StableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=control)
    fxcache.optimize(pipe)
    optimised = [n for n, m in pipe.components.items() if isinstance(m, nn.Module) and engine_of(m)]
    assert optimised == ["unet"]


def test_modular_pipelines():
    from diffusers.modular_pipelines import ModularPipelineBlocks, PipelineState
    from diffusers.modular_pipelines.modular_pipeline_utils import (
        ComponentSpec,
        InputParam,
        OutputParam,
    )

    class Loop(ModularPipelineBlocks):
        @property
        def expected_components(self) -> list[Any]:
            return [ComponentSpec("unet", type(tiny.small_unet()))]

        @property
        def inputs(self) -> list[Any]:
            return [InputParam("steps", default=6)]

        @property
        def intermediate_outputs(self) -> list[Any]:
            return [OutputParam("latents")]

        @torch.no_grad()
        def __call__(self, components: Any, state: PipelineState) -> tuple[Any, PipelineState]:
            block, given = self.get_block_state(state), tiny.inputs()
            latents: Tensor = given.pop("sample")
            for t in torch.linspace(900, 100, block.steps):
                latents = latents - 0.1 * components.unet(latents, t.clone(), **given).sample
            block.latents = latents
            self.set_block_state(state, block)
            return components, state

    pipe = Loop().init_pipeline()
    pipe.update_components(unet=tiny.small_unet())
    expected = pipe(output="latents")
    fxcache.optimize(pipe, fxcache.Uniform(1))
    assert torch.equal(pipe(output="latents"), expected)
    fxcache.optimize(pipe, fxcache.Uniform(3))
    pipe(output="latents")
    assert refreshes(pipe.unet) == [[0, 3]]
    fxcache.restore(pipe)
    assert torch.equal(pipe(output="latents"), expected)
