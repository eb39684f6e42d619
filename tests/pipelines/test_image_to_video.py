"""Tests pipelines that start from an image: conditioning frames, and a timestep for each token."""

from functools import partial
from typing import Any

import diffusers
import pytest
import torch
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from bench.pipelines.parts import denoiser, noise
from tests import tiny
from tests.pipelines.build import (
    COGVIDEOX_PROMPT,
    EVERY_THIRD,
    FLUX_PROMPT,
    LTX_PROMPT,
    PICTURE,
    WAN_PROMPT,
    Draw,
    Made,
    around,
    flow_unipc,
    keeps,
    optimised,
)

pytestmark = pytest.mark.usefixtures("shared_captures")

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


def wan(expand_timesteps: bool = False, **config: Any) -> Made:
    return around(
        denoiser("WanTransformer3DModel", **config),
        diffusers.WanImageToVideoPipeline,
        WAN_PROMPT | {"image": PICTURE},
        vae=wan_vae(),
        image_encoder=image_encoder(),
        image_processor=CLIPImageProcessorPil(size=16, crop_size=16),
        scheduler=flow_unipc(),
        expand_timesteps=expand_timesteps,
    )


def test_wan_2_1():
    model, draw, _ = wan(in_channels=12, image_dim=16, added_kv_proj_dim=24)
    keeps(draw, model, expected=TWICE)


def test_wan_2_2_with_a_timestep_for_each_token():
    model, draw, _ = wan(expand_timesteps=True)
    keeps(draw, model, expected=TWICE)


def test_ltx_with_a_timestep_for_each_token():
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    ).eval()
    model, draw, _ = around(
        denoiser("LTXVideoTransformer3DModel"),
        diffusers.LTXImageToVideoPipeline,
        LTX_PROMPT | {"image": PICTURE},
        vae=vae,
    )
    keeps(draw, model)


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
    model, draw, _ = around(
        denoiser("CogVideoXTransformer3DModel", in_channels=8, out_channels=4),
        diffusers.CogVideoXImageToVideoPipeline,
        COGVIDEOX_PROMPT | {"image": PICTURE},
        vae=vae,
        scheduler=diffusers.CogVideoXDDIMScheduler(),
    )
    keeps(draw, model)


def picture(seed: int) -> torch.Tensor:
    return noise(1, 3, 64, 64, seed=seed).sigmoid()


def flux() -> Made:
    return around(
        denoiser("FluxTransformer2DModel"),
        diffusers.FluxImg2ImgPipeline,
        FLUX_PROMPT | {"image": picture(0), "strength": 1.0},
        vae=tiny.vae(levels=4, shift_factor=0.0),
    )


def test_flux_from_a_picture():
    model, draw, _ = flux()
    keeps(draw, model)


def flux_twice(calls: int) -> tuple[Any, Draw, Draw]:
    """Make a run of this many calls, and one that starts at its end or lower."""
    model, draw, _ = flux()
    first = partial(draw, num_inference_steps=2 * calls, strength=0.5)
    second = partial(draw, image=picture(1), num_inference_steps=100, strength=0.05)
    return model, first, second


@pytest.mark.sweep(1)
@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("interval", [3, 100])
def test_flux_from_another_picture_with_the_same_prompt(calls, interval):
    model, first, second = flux_twice(calls)
    with optimised(model, interval=interval):
        alone = second()
    with optimised(model, interval=interval):
        first()
        assert torch.equal(second(), alone)
