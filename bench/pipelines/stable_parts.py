"""Parts of pipelines that resemble Stable Diffusion."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import WIDTH, clip_text, denoiser, prompt, square, tokenizer, vae

SIDE = 32  # of the pictures

TWO_LEVELS: Mapping[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
}


def small_unet(**config: Any) -> Any:
    """Build a U-Net with two levels, which attends to a prompt of ``clip_text``."""
    defaults = {**TWO_LEVELS, "cross_attention_dim": WIDTH, "sample_size": SIDE // 2}
    return denoiser("UNet2DConditionModel", **(defaults | config))


def xl_config(pooled: int) -> dict[str, Any]:
    """Return the options of a U-Net that takes a pooled prompt and the size of the picture."""
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": pooled + 6 * 8,
    }


def ddim() -> Any:
    return diffusers.DDIMScheduler(clip_sample=False, steps_offset=1)


def stable_parts(**parts: Any) -> dict[str, Any]:
    """Return the parts of Stable Diffusion, of which ``parts`` replace some."""
    made = {
        "unet": parts.pop("unet", None) or small_unet(),
        "vae": parts.pop("vae", None) or vae(),
        "scheduler": parts.pop("scheduler", None) or ddim(),
    }
    return {**made, "requires_safety_checker": False, **parts}


def text_parts() -> dict[str, Any]:
    return {"text_encoder": clip_text(), "tokenizer": tokenizer()}


def words() -> dict[str, Any]:
    """Return embeddings of a prompt and of a negative one."""
    return prompt(7, WIDTH)


def sized_words() -> dict[str, Any]:
    return {**words(), **square(SIDE)}
