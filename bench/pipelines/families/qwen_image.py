"""Pipelines of Qwen-Image."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from bench.denoisers.qwen_image import QWEN_TINY
from bench.pipelines.autoencoders import causal_vae
from bench.pipelines.parts import (
    StandIn,
    denoiser,
    flow_matching,
    model,
    noise,
    picture,
    pictures,
    square,
    steps_of,
)
from bench.pipelines.recipe import PipelineRecipe

SIDE = 16


def qwen(kind: str, parts: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """Build a pipeline with these parts beside the transformer, which has this configuration."""
    transformer = denoiser("QwenImageTransformer2DModel", **config)
    return flow_matching(kind, transformer, **{"vae": causal_vae(), **parts})


def controlnet(extra_channels: int = 0) -> dict[str, Any]:
    config = dict(QWEN_TINY, extra_condition_channels=extra_channels)
    return {"controlnet": model(diffusers.QwenImageControlNetModel, **config)}


def edited(halvings: int, **config: Any) -> dict[str, Any]:
    """Build parts for pipelines that scale their picture to a size of a million pixels."""
    return {"vae": causal_vae(halvings, base_dim=2, **config), "text_encoder": StandIn()}


def inputs(kind: str, sized: bool) -> Mapping[str, Any]:
    """Return all inputs that the pipeline takes, and a small size unless it has its own."""
    words = {
        "prompt_embeds": noise(1, 7, 24),
        "prompt_embeds_mask": torch.ones(1, 7, dtype=torch.long),
        "negative_prompt_embeds": noise(1, 6, 24, seed=1),
        "negative_prompt_embeds_mask": torch.tensor([[1, 1, 1, 1, 1, 0]]),
    }
    size = square(SIDE) if sized else {}
    return {**pictures(kind, SIDE), **words, **size, "true_cfg_scale": 3.0}


def recipe(
    kind: str, parts: Any = dict, sized: bool = True, options: Any = None, **config: Any
) -> PipelineRecipe:
    return PipelineRecipe(
        kind,
        lambda: qwen(kind, parts(), config),
        lambda: {**inputs(kind, sized), **(options or {})},
        steps=steps_of(kind),
        trajectories={"transformer": 2},
    )


RECIPES = (
    recipe("QwenImagePipeline"),
    recipe("QwenImageImg2ImgPipeline"),
    recipe("QwenImageInpaintPipeline"),
    recipe("QwenImageControlNetPipeline", controlnet),
    recipe("QwenImageControlNetInpaintPipeline", lambda: controlnet(4)),
    recipe("QwenImageEditPipeline", lambda: edited(6), sized=False),
    recipe("QwenImageEditInpaintPipeline", lambda: edited(6), sized=False),
    recipe("QwenImageEditPlusPipeline", lambda: edited(6), sized=False),
    recipe(
        "QwenImageLayeredPipeline",
        lambda: edited(6, channels=8, input_channels=4),
        sized=False,
        # It cannot return latents.
        options={
            "image": picture(SIDE).convert("RGBA"),
            "layers": 2,
            "prompt": "a b",
            "output_type": "pt",
        },
        in_channels=32,
        out_channels=8,
        use_additional_t_cond=True,
        use_layer3d_rope=True,
    ),
)
