"""Text-to-image and text-to-video pipelines of transformers, end to end."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler as FlowEuler

import fxcache
from fxcache.runtime.module import engine_of
from tests.pipelines.build import (
    EVERY_THIRD,
    STEPS,
    assembled,
    denoiser,
    drawing,
    flux,
    keeps,
    noise,
    optimised,
)

TWICE = [EVERY_THIRD] * 2


FLUX_NEGATIVE = {
    "negative_prompt_embeds": noise(1, 7, 24, seed=1),
    "negative_pooled_prompt_embeds": noise(1, 12, seed=1),
    "true_cfg_scale": 3.0,
}


def test_flux():
    model, draw, _ = flux()
    keeps(draw, model)


def test_flux_true_cfg():
    model, draw, _ = flux(**FLUX_NEGATIVE)
    keeps(draw, model, expected=TWICE)


def sd3() -> Any:
    model = denoiser("SD3Transformer2DModel", sample_size=32)
    return assembled(diffusers.StableDiffusion3Pipeline, transformer=model, scheduler=FlowEuler())


SD3_PROMPT = {
    "prompt_embeds": noise(1, 7, 24),
    "pooled_prompt_embeds": noise(1, 12),
    "negative_prompt_embeds": noise(1, 7, 24, seed=1),
    "negative_pooled_prompt_embeds": noise(1, 12, seed=1),
    "height": 64,
    "width": 64,
}


def test_sd3():
    pipe = sd3()
    keeps(drawing(pipe, **SD3_PROMPT), pipe.transformer)


def test_sd3_skip_layer_guidance_is_a_run_of_its_own():
    pipe = sd3()
    draw = drawing(
        pipe,
        **SD3_PROMPT,
        skip_guidance_layers=[1],
        skip_layer_guidance_start=0.0,
        skip_layer_guidance_stop=1.0,
    )
    keeps(draw, pipe.transformer, expected=[EVERY_THIRD, [0, 3]])


def wan(**parts: Any) -> Any:
    parts = {"transformer": denoiser("WanTransformer3DModel")} | parts
    return assembled(
        diffusers.WanPipeline,
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        **parts,
    )


def wan_prompt(pipe: Any) -> dict[str, Any]:
    width = pipe.transformer.config.text_dim
    return {
        "prompt_embeds": noise(1, 7, width),
        "negative_prompt_embeds": noise(1, 7, width, seed=1),
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "guidance_scale": 3.0,
    }


def test_wan_sequential_guidance():
    pipe = wan()
    keeps(drawing(pipe, **wan_prompt(pipe)), pipe.transformer, expected=TWICE)


def test_wan_two_experts():
    pipe = wan(transformer_2=denoiser("WanTransformer3DModel"), boundary_ratio=0.8)
    torch.nn.init.normal_(pipe.transformer_2.proj_out.weight)
    draw = drawing(pipe, **wan_prompt(pipe))
    keeps(draw, pipe.transformer, pipe.transformer_2, expected=[[0, 3], [0, 3]], last=[[0], [0]])


def test_wan_with_a_timestep_for_each_token():
    pipe = wan(expand_timesteps=True)
    keeps(drawing(pipe, **wan_prompt(pipe)), pipe.transformer, expected=TWICE)


def qwen_image() -> Any:
    model = denoiser("QwenImageTransformer2DModel")
    return assembled(diffusers.QwenImagePipeline, transformer=model, scheduler=FlowEuler())


def test_qwen_image():
    pipe = qwen_image()
    draw = drawing(
        pipe,
        prompt_embeds=noise(1, 7, 24),
        prompt_embeds_mask=torch.ones(1, 7, dtype=torch.long),
        negative_prompt_embeds=noise(1, 6, 24, seed=1),
        negative_prompt_embeds_mask=torch.tensor([[1, 1, 1, 1, 1, 0]]),
        true_cfg_scale=3.0,
        height=64,
        width=64,
    )
    keeps(draw, pipe.transformer, expected=TWICE)


def z_image() -> tuple[Any, Any]:
    pipe = assembled(
        diffusers.ZImagePipeline,
        transformer=denoiser("ZImageTransformer2DModel"),
        scheduler=FlowEuler(shift=3.0),
    )
    draw = drawing(
        pipe,
        prompt_embeds=[noise(7, 24)],
        negative_prompt_embeds=[noise(6, 24, seed=1)],
        guidance_scale=3.0,
        height=64,
        width=64,
    )
    return pipe.transformer, draw


def lumina2() -> tuple[Any, Any]:
    pipe = assembled(
        diffusers.Lumina2Pipeline,
        transformer=denoiser("Lumina2Transformer2DModel"),
        scheduler=FlowEuler(),
    )
    draw = drawing(
        pipe,
        prompt_embeds=noise(1, 7, 20),
        prompt_attention_mask=torch.tensor([[1] * 7]),
        negative_prompt_embeds=noise(1, 7, 20, seed=1),
        negative_prompt_attention_mask=torch.tensor([[1] * 5 + [0] * 2]),
        height=64,
        width=64,
    )
    return pipe.transformer, draw


# Outside a session the second call might be another run's first: it is refreshed too.
RISING_RUN = sorted({1, *EVERY_THIRD})


@pytest.mark.parametrize(
    ("made", "calls"), [(z_image, 1), (lumina2, 2)], ids=["z_image", "lumina2"]
)
def test_rising_timesteps_in_a_session(made, calls):
    model, draw = made()

    def in_session() -> torch.Tensor:
        if engine_of(model) is None:
            return draw()
        with fxcache.session(model, num_steps=STEPS):
            return draw()

    keeps(in_session, model, expected=[EVERY_THIRD] * calls)


@pytest.mark.parametrize(
    ("made", "calls"), [(z_image, 1), (lumina2, 2)], ids=["z_image", "lumina2"]
)
def test_rising_timesteps(made, calls):
    model, draw = made()
    keeps(draw, model, expected=[RISING_RUN] * calls)


def test_rising_timesteps_in_a_session_with_a_key():
    model, draw = z_image()
    drawn = []
    with optimised(model):
        for _ in range(2):
            with fxcache.session(model, key="one"):
                drawn.append(draw())
    assert torch.equal(*drawn)


def ltx(kind: Any = diffusers.LTXPipeline, **parts: Any) -> Any:
    model = denoiser("LTXVideoTransformer3DModel")
    return assembled(kind, transformer=model, scheduler=FlowEuler(), **parts)


LTX_PROMPT = {
    "prompt_embeds": noise(1, 7, 16),
    "prompt_attention_mask": torch.ones(1, 7, dtype=torch.bool),
    "negative_prompt_embeds": noise(1, 7, 16, seed=1),
    "negative_prompt_attention_mask": torch.tensor([[True] * 5 + [False] * 2]),
    "height": 64,
    "width": 64,
    "num_frames": 9,
}


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_ltx(rescale):
    pipe = ltx()
    keeps(drawing(pipe, **LTX_PROMPT, guidance_rescale=rescale), pipe.transformer)


COGVIDEOX_PROMPT = {
    "prompt_embeds": noise(1, 5, 16),
    "negative_prompt_embeds": noise(1, 5, 16, seed=1),
    "height": 32,
    "width": 32,
    "num_frames": 5,
}


@pytest.mark.parametrize("scheduler", ["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_cogvideox(scheduler, dynamic):
    pipe = assembled(
        diffusers.CogVideoXPipeline,
        transformer=denoiser("CogVideoXTransformer3DModel"),
        scheduler=getattr(diffusers, scheduler)(),
    )
    draw = drawing(pipe, **COGVIDEOX_PROMPT, use_dynamic_cfg=dynamic)
    keeps(draw, pipe.transformer)


def test_pixart():
    pipe = assembled(
        diffusers.PixArtSigmaPipeline,
        transformer=denoiser("PixArtTransformer2DModel", use_additional_conditions=False),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )
    draw = drawing(
        pipe,
        prompt_embeds=noise(1, 7, 20),
        prompt_attention_mask=torch.tensor([[1] * 7]),
        negative_prompt=None,
        negative_prompt_embeds=noise(1, 7, 20, seed=1),
        negative_prompt_attention_mask=torch.tensor([[1] * 5 + [0] * 2]),
        use_resolution_binning=False,
        height=64,
        width=64,
    )
    keeps(draw, pipe.transformer)


def test_sana():
    pipe = assembled(
        diffusers.SanaPipeline,
        transformer=denoiser("SanaTransformer2DModel"),
        scheduler=FlowEuler(),
    )
    draw = drawing(
        pipe,
        prompt_embeds=noise(1, 7, 24),
        prompt_attention_mask=torch.tensor([[1] * 7]),
        negative_prompt=None,
        negative_prompt_embeds=noise(1, 7, 24, seed=1),
        negative_prompt_attention_mask=torch.tensor([[1] * 5 + [0] * 2]),
        use_resolution_binning=False,
        height=256,
        width=256,
    )
    keeps(draw, pipe.transformer)


def test_wan_interrupted_with_a_timestep_for_each_token_stays_exact():
    pipe = wan(expand_timesteps=True)
    draw = drawing(pipe, **wan_prompt(pipe))
    plain = draw()

    def interrupt(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step >= 1
        return values

    with optimised(pipe.transformer):
        draw(callback_on_step_end=interrupt)
        with pytest.warns(fxcache.FxcacheWarning, match="start over before their end"):
            assert torch.equal(draw(), plain)
