"""Pipelines of HunyuanImage."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.guiders import AdaptiveProjectedMixGuidance

from bench.pipelines.parts import denoiser, flow_matching, noise, square
from bench.pipelines.recipe import PipelineRecipe

TWICE = {"transformer": 2}


def hunyuan_image(kind: str, parts: Mapping[str, Any], **config: Any) -> Any:
    return flow_matching(
        kind,
        denoiser("HunyuanImageTransformer2DModel", **config),
        guider=AdaptiveProjectedMixGuidance(),
        **parts,
    )


def base() -> Any:
    """Build a pipeline that takes the text to write in the image too."""
    parts = {"ocr_guider": AdaptiveProjectedMixGuidance()}
    return hunyuan_image("HunyuanImagePipeline", parts, text_embed_2_dim=12)


def refiner() -> Any:
    """Build a pipeline whose latent has a frame, with that of the picture beside it."""
    config = {"in_channels": 32, "guidance_embeds": True}
    axes = {"patch_size": (1, 1, 1), "rope_axes_dim": (4, 6, 6)}
    return hunyuan_image("HunyuanImageRefinerPipeline", {}, **config, **axes)


def words(second: bool) -> dict[str, Any]:
    """Return embeddings of a prompt and a negative one, and of the text to write if ``second``."""
    widths = {"": 24, "_2": 12} if second else {"": 24}
    states = {
        f"{prefix}prompt_embeds{suffix}": noise(1, 7, width, seed=seed)
        for suffix, width in widths.items()
        for seed, prefix in enumerate(("", "negative_"))
    }
    masks = {
        name.replace("embeds", "embeds_mask"): torch.ones(1, 7, dtype=torch.long) for name in states
    }
    return {**states, **masks}


RECIPES = (
    PipelineRecipe(
        "HunyuanImagePipeline", base, lambda: {**words(True), **square(256)}, trajectories=TWICE
    ),
    PipelineRecipe(
        "HunyuanImageRefinerPipeline",
        refiner,
        lambda: {**words(False), **square(128), "image": noise(1, 16, 1, 8, 8)},
        trajectories=TWICE,
    ),
)
