"""Pipelines of Stable Diffusion and Stable Diffusion XL, and what belongs to their U-Nets."""

from collections.abc import Callable, Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import WIDTH, assembled, denoiser, model, prompt, square, vae
from bench.pipelines.recipe import PipelineRecipe

Parts = Callable[[], Mapping[str, Any]]

SIDE = 32  # of a picture; its latent has half of it
SIZE: Mapping[str, Any] = square(SIDE)
TOKENS = 7  # of a prompt

# The levels that a ControlNet shares with its U-Net.
ENCODER: Mapping[str, Any] = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "cross_attention_dim": WIDTH,
}
XL_ENCODER: Mapping[str, Any] = {
    **ENCODER,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": WIDTH + 6 * 8,
    "cross_attention_dim": 2 * WIDTH,
    "transformer_layers_per_block": (1, 2),
}


def unet(**config: Any) -> Any:
    """Build a U-Net of Stable Diffusion with two levels, and these constructor arguments."""
    decoder = {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "sample_size": SIDE // 2}
    return denoiser("UNet2DConditionModel", **{**ENCODER, **decoder, **config})


def xl_unet(**config: Any) -> Any:
    """Build a U-Net of Stable Diffusion XL with two levels, and these constructor arguments."""
    return unet(**{**XL_ENCODER, **config})


def controlnet(kind: Any = diffusers.ControlNetModel, **config: Any) -> Any:
    """Build a ControlNet for a U-Net with these constructor arguments."""
    embedding = {"conditioning_embedding_out_channels": (8, 16)}
    return model(kind, **{**ENCODER, **embedding, **config})


def sd(kind: str, **parts: Any) -> Any:
    """Build a pipeline of Stable Diffusion, with these parts in place of the usual ones."""
    scheduler = diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1)
    defaults: dict[str, Any] = {"scheduler": scheduler, "vae": vae()}
    return assembled(kind, **({"unet": unet(), **defaults} | parts))


def xl(kind: str | type, **parts: Any) -> Any:
    """Build a pipeline of Stable Diffusion XL, with these parts in place of the usual ones."""
    scheduler = diffusers.EulerDiscreteScheduler(steps_offset=1, timestep_spacing="leading")
    defaults: dict[str, Any] = {"scheduler": scheduler, "vae": vae()}
    return assembled(kind, **({"unet": xl_unet(), **defaults} | parts))


def sd_recipe(kind: str, parts: Parts = dict, steps: int = 7, **options: Any) -> PipelineRecipe:
    """Return the recipe of a pipeline of Stable Diffusion with a prompt and these options."""
    words = prompt(TOKENS, WIDTH)
    return PipelineRecipe(kind, lambda: sd(kind, **parts()), lambda: {**words, **options}, steps)


def xl_recipe(kind: str, parts: Parts = dict, steps: int = 7, **options: Any) -> PipelineRecipe:
    """Return the recipe of a pipeline of Stable Diffusion XL with a prompt and these options."""
    words = prompt(TOKENS, 2 * WIDTH, pooled=WIDTH)
    return PipelineRecipe(kind, lambda: xl(kind, **parts()), lambda: {**words, **options}, steps)
