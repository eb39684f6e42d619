"""Upscalers of Stable Diffusion."""

from typing import Any

import diffusers

from bench.pipelines.parts import WIDTH, denoiser, picture, prompt
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_diffusion import TOKENS, sd, sd_recipe, unet

NOISE_LEVEL_WIDTH = 128


def latent_upscaler_unet() -> Any:
    """Build a U-Net of k-diffusion's blocks, with the pooled prompt in its time embedding."""
    return denoiser(
        "UNet2DConditionModel",
        in_channels=8,
        out_channels=5,
        block_out_channels=(32, 64, 64),  # its norms have groups of 32 channels
        layers_per_block=1,
        norm_num_groups=None,
        attention_head_dim=8,
        cross_attention_dim=WIDTH,
        down_block_types=("KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"),
        mid_block_type=None,
        up_block_types=("KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"),
        conv_in_kernel=1,
        conv_out_kernel=1,
        act_fn="gelu",
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
        time_cond_proj_dim=NOISE_LEVEL_WIDTH + WIDTH,
    )


def latent_upscaler() -> Any:
    return sd(
        "StableDiffusionLatentUpscalePipeline",
        unet=latent_upscaler_unet(),
        scheduler=diffusers.EulerDiscreteScheduler(prediction_type="sample"),
    )


def upscaler_parts() -> dict[str, Any]:
    return {
        "unet": unet(in_channels=7, num_class_embeds=1000),
        "low_res_scheduler": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "scheduler": diffusers.DDIMScheduler(prediction_type="v_prediction"),
        "max_noise_level": 350,
    }


RECIPES = (
    sd_recipe("StableDiffusionUpscalePipeline", upscaler_parts, image=picture(16)),
    PipelineRecipe(
        "StableDiffusionLatentUpscalePipeline",
        latent_upscaler,
        lambda: {**prompt(TOKENS, WIDTH, pooled=WIDTH), "image": picture()},
    ),
)
