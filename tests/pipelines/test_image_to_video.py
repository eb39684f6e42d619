"""Pipelines that start from a picture: conditioning frames, and a timestep for each token."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler as FlowEuler
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from tests.pipelines.build import (
    EVERY_THIRD,
    FLUX_PROMPT,
    PICTURE,
    assembled,
    denoiser,
    drawing,
    keeps,
    noise,
    optimised,
)

TWICE = [EVERY_THIRD] * 2


def wan_vae() -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()


def image_encoder() -> CLIPVisionModel:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return CLIPVisionModel(config).eval()


def wan(**config: Any) -> tuple[Any, Any]:
    expand = config.pop("expand_timesteps", False)
    pipe = assembled(
        diffusers.WanImageToVideoPipeline,
        transformer=denoiser("WanTransformer3DModel", **config),
        vae=wan_vae(),
        image_encoder=image_encoder(),
        image_processor=CLIPImageProcessorPil(size=16, crop_size=16),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        expand_timesteps=expand,
    )
    draw = drawing(
        pipe,
        image=PICTURE,
        prompt_embeds=noise(1, 7, 16),
        negative_prompt_embeds=noise(1, 7, 16, seed=1),
        height=32,
        width=32,
        num_frames=5,
        guidance_scale=3.0,
    )
    return pipe, draw


def test_wan_2_1():
    pipe, draw = wan(in_channels=12, image_dim=16, added_kv_proj_dim=24)
    keeps(draw, pipe.transformer, expected=TWICE)


def test_wan_2_2_with_a_timestep_for_each_token():
    pipe, draw = wan(expand_timesteps=True)
    keeps(draw, pipe.transformer, expected=TWICE)


def test_ltx_with_a_timestep_for_each_token():
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    ).eval()
    pipe = assembled(
        diffusers.LTXImageToVideoPipeline,
        transformer=denoiser("LTXVideoTransformer3DModel"),
        vae=vae,
        scheduler=FlowEuler(),
    )
    draw = drawing(
        pipe,
        image=PICTURE,
        prompt_embeds=noise(1, 7, 16),
        prompt_attention_mask=torch.ones(1, 7, dtype=torch.bool),
        negative_prompt_embeds=noise(1, 7, 16, seed=1),
        negative_prompt_attention_mask=torch.tensor([[True] * 5 + [False] * 2]),
        height=64,
        width=64,
        num_frames=9,
    )
    keeps(draw, pipe.transformer)


def test_cogvideox():
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    ).eval()
    pipe = assembled(
        diffusers.CogVideoXImageToVideoPipeline,
        transformer=denoiser("CogVideoXTransformer3DModel", in_channels=8, out_channels=4),
        vae=vae,
        scheduler=diffusers.CogVideoXDDIMScheduler(),
    )
    draw = drawing(
        pipe,
        image=PICTURE,
        prompt_embeds=noise(1, 5, 16),
        negative_prompt_embeds=noise(1, 5, 16, seed=1),
        height=32,
        width=32,
        num_frames=5,
    )
    keeps(draw, pipe.transformer)


def flux() -> Any:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
        shift_factor=0.0,
    ).eval()
    return assembled(
        diffusers.FluxImg2ImgPipeline,
        transformer=denoiser("FluxTransformer2DModel"),
        vae=vae,
        scheduler=FlowEuler(),
    )


def picture(seed: int) -> torch.Tensor:
    return noise(1, 3, 64, 64, seed=seed).sigmoid()


def test_flux_from_a_picture():
    pipe = flux()
    draw = drawing(pipe, **FLUX_PROMPT, image=picture(0), strength=1.0)
    keeps(draw, pipe.transformer)


def flux_twice(calls: int) -> tuple[Any, Any, Any]:
    """A run of so many calls, and one that starts where the first one ended, or lower."""
    pipe = flux()
    first = drawing(
        pipe, **FLUX_PROMPT, image=picture(0), num_inference_steps=2 * calls, strength=0.5
    )
    second = drawing(pipe, **FLUX_PROMPT, image=picture(1), num_inference_steps=100, strength=0.05)
    return pipe.transformer, first, second


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("interval", [3, 100])
def test_flux_from_another_picture_with_the_same_prompt(calls, interval):
    model, first, second = flux_twice(calls)
    with optimised(model, interval=interval):
        alone = second()
    with optimised(model, interval=interval):
        first()
        assert torch.equal(second(), alone)
