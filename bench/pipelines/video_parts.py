"""Parts of small video pipelines: autoencoders, image encoders, schedulers, frames."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from bench.pipelines.parts import mask, model, picture

IMAGE_WIDTH = 16
GUIDED = {"transformer": 2}  # the trajectories with guidance in calls of its own


def wan_vae(**config: Any) -> Any:
    """Build Wan's autoencoder with four channels: 8 pixels and 4 frames in a latent one."""
    channels = config.get("z_dim", 4)
    defaults: dict[str, Any] = {
        "base_dim": 4,
        "z_dim": channels,
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
        "latents_mean": [0.0] * channels,
        "latents_std": [1.0] * channels,
    }
    return model(diffusers.AutoencoderKLWan, **(defaults | config))


def clip_vision(**config: Any) -> Any:
    """Build CLIP's image encoder, which makes five tokens of a picture."""
    defaults: dict[str, Any] = {
        "hidden_size": IMAGE_WIDTH,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    return model(lambda: CLIPVisionModel(CLIPVisionConfig(**(defaults | config))))


def clip_processor() -> Any:
    return CLIPImageProcessorPil(size=16, crop_size=16)


def clip_parts() -> Mapping[str, Any]:
    """Build the image encoder of a pipeline, and what prepares its pictures."""
    return {"image_encoder": clip_vision(), "image_processor": clip_processor()}


def flow_unipc() -> Any:
    """Build the solver of Wan's pipelines."""
    return diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )


def flow_euler(**config: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**config)


def frames(count: int, side: int = 32) -> list[Image.Image]:
    return [picture(side, seed=seed) for seed in range(count)]


def masks(count: int, side: int = 32) -> list[Image.Image]:
    return [mask(side)] * count


def prompt_masks(tokens: int = 7, dtype: torch.dtype = torch.long) -> dict[str, Tensor]:
    """Return the masks of a prompt without padding, and of a negative one with two tokens less."""
    positive = torch.ones(1, tokens)
    return {
        "prompt_attention_mask": positive.to(dtype),
        "negative_prompt_attention_mask": (torch.arange(tokens) < tokens - 2)[None].to(dtype),
    }
