"""Tests text-to-image and text-to-video pipelines of transformers, end to end."""

from typing import Any

import diffusers
import pytest
import torch

import fxcache
from bench.pipelines.parts import denoiser, noise, prompt, square
from tests.pipelines.build import (
    COGVIDEOX_PROMPT,
    EVERY_THIRD,
    LTX_PROMPT,
    STEPS,
    WAN_PROMPT,
    Made,
    around,
    flow_unipc,
    flux,
    in_session,
    keeps,
    masks,
    optimised,
    runs,
    sd3,
)

pytestmark = pytest.mark.usefixtures("shared_captures")

TWICE = [EVERY_THIRD] * 2


@pytest.mark.slow
def test_flux():
    model, draw, _ = flux()
    keeps(draw, model)


def test_flux_true_cfg():
    model, draw, _ = flux(true_cfg_scale=3.0)
    keeps(draw, model, expected=[EVERY_THIRD] * 2)


@pytest.mark.slow
def test_sd3():
    model, draw, _ = sd3()
    keeps(draw, model)


def test_sd3_skip_layer_guidance_is_a_run_of_its_own():
    model, draw, _ = sd3(
        skip_guidance_layers=[1], skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0
    )
    keeps(draw, model, expected=[EVERY_THIRD, [0, 3]])


def wan(**parts: Any) -> Made:
    model = denoiser("WanTransformer3DModel")
    return around(model, diffusers.WanPipeline, WAN_PROMPT, scheduler=flow_unipc(), **parts)


@pytest.mark.slow
def test_wan_sequential_guidance():
    model, draw, _ = wan()
    keeps(draw, model, expected=TWICE)


def test_wan_two_experts():
    second = denoiser("WanTransformer3DModel")
    torch.nn.init.normal_(second.proj_out.weight)
    model, draw, _ = wan(transformer_2=second, boundary_ratio=0.8)
    keeps(draw, model, second, expected=[[0, 3], [0, 3]], last=[[0], [0]])


@pytest.mark.parametrize("whole", [True, False], ids=["pipeline", "modules"])
def test_wan_each_expert_knows_its_steps_in_the_first_run(whole):
    """Of seven steps, four are the first expert's. The default policy protects its last one."""
    second = denoiser("WanTransformer3DModel")
    model, draw, pipe = wan(transformer_2=second, boundary_ratio=0.7)
    for target in [pipe] if whole else [model, second]:
        fxcache.optimize(target)
    first = draw()
    found = [runs(model), runs(second)]
    assert found == [[[0, 2, 3]] * 2, [[0, 2]] * 2]
    assert torch.equal(draw(), first)
    assert [runs(model), runs(second)] == found


def test_wan_with_a_timestep_for_each_token():
    model, draw, _ = wan(expand_timesteps=True)
    keeps(draw, model, expected=TWICE)


@pytest.mark.slow
def test_qwen_image():
    options = {
        "prompt_embeds": noise(1, 7, 24),
        "prompt_embeds_mask": torch.ones(1, 7, dtype=torch.long),
        "negative_prompt_embeds": noise(1, 6, 24, seed=1),
        "negative_prompt_embeds_mask": torch.tensor([[1, 1, 1, 1, 1, 0]]),
        "true_cfg_scale": 3.0,
    }
    model = denoiser("QwenImageTransformer2DModel")
    model, draw, _ = around(model, diffusers.QwenImagePipeline, options | square(64))
    keeps(draw, model, expected=[EVERY_THIRD] * 2)


def z_image() -> Made:
    options = {
        "prompt_embeds": [noise(7, 24)],
        "negative_prompt_embeds": [noise(6, 24, seed=1)],
        "guidance_scale": 3.0,
    }
    return around(
        denoiser("ZImageTransformer2DModel"),
        diffusers.ZImagePipeline,
        options | square(64),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def lumina2() -> Made:
    options = prompt(7, 20) | masks() | square(64)
    return around(denoiser("Lumina2Transformer2DModel"), diffusers.Lumina2Pipeline, options)


RISING = pytest.mark.parametrize(
    ("made", "calls"),
    [(z_image, 1), pytest.param(lumina2, 2, marks=pytest.mark.slow)],
    ids=["z_image", "lumina2"],
)


@RISING
def test_rising_timesteps_in_a_session(made, calls):
    model, draw, _ = made()
    draw = in_session(draw, model, num_steps=STEPS)
    keeps(draw, model, expected=[EVERY_THIRD] * calls)


@RISING
def test_rising_timesteps(made, calls):
    model, draw, _ = made()
    keeps(draw, model, expected=[EVERY_THIRD] * calls)


def test_rising_timesteps_in_a_session_with_a_key():
    model, draw, _ = z_image()
    draw = in_session(draw, model, key="one")
    with optimised(model):
        assert torch.equal(draw(), draw())


@pytest.mark.sweep(1)
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_ltx(rescale):
    options = LTX_PROMPT | {"guidance_rescale": rescale}
    model = denoiser("LTXVideoTransformer3DModel")
    model, draw, _ = around(model, diffusers.LTXPipeline, options)
    keeps(draw, model)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("scheduler", ["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_cogvideox(scheduler, dynamic):
    model, draw, _ = around(
        denoiser("CogVideoXTransformer3DModel"),
        diffusers.CogVideoXPipeline,
        COGVIDEOX_PROMPT | {"use_dynamic_cfg": dynamic},
        scheduler=getattr(diffusers, scheduler)(),
    )
    keeps(draw, model)


# By default the negative prompt is a text, and pictures get the nearest trained size.
AS_GIVEN = {"negative_prompt": None, "use_resolution_binning": False}


def test_pixart():
    model, draw, _ = around(
        denoiser("PixArtTransformer2DModel", use_additional_conditions=False),
        diffusers.PixArtSigmaPipeline,
        prompt(7, 20) | masks() | square(64) | AS_GIVEN,
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )
    keeps(draw, model)


def test_sana():
    options = prompt(7, 24) | masks() | square(256) | AS_GIVEN
    model = denoiser("SanaTransformer2DModel")
    model, draw, _ = around(model, diffusers.SanaPipeline, options)
    keeps(draw, model)


def test_wan_interrupted_with_a_timestep_for_each_token_leaves_nothing_to_the_next_run():
    model, draw, _ = wan(expand_timesteps=True)
    with optimised(model):
        expected = draw()

    def interrupt(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step >= 1
        return values

    with optimised(model):
        draw(callback_on_step_end=interrupt)
        assert torch.equal(draw(), expected)
