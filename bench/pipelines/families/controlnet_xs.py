"""Pipelines of ControlNet-XS."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import WIDTH, assembled, model, picture, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_parts import SIDE, small_unet, stable_parts, xl_config

POOLED = 16


def parts(**config: Any) -> dict[str, Any]:
    """Build the parts of Stable Diffusion with an adapter that joins the U-Net."""
    unet = small_unet(use_linear_projection=True, **config)
    adapter = model(
        diffusers.ControlNetXSAdapter.from_unet,
        unet=unet,
        size_ratio=1,
        learn_time_embedding=True,
        conditioning_embedding_out_channels=(4, 4),
    )
    return stable_parts(unet=unet, controlnet=adapter)


def joined(pipeline: Any) -> Any:
    """Set eval mode, as the pipeline joins its U-Net and the adapter in train mode."""
    pipeline.unet.eval()
    return pipeline


def controlnet_xs() -> Any:
    return joined(assembled("StableDiffusionControlNetXSPipeline", **parts()))


def controlnet_xs_xl() -> Any:
    xl_parts = parts(**xl_config(POOLED))
    del xl_parts["requires_safety_checker"]
    return joined(assembled("StableDiffusionXLControlNetXSPipeline", **xl_parts))


def controlled(pooled: int = 0) -> Mapping[str, Any]:
    words = prompt(7, WIDTH, pooled)
    return {**words, **square(SIDE), "image": picture(SIDE), "controlnet_conditioning_scale": 0.8}


RECIPES = (
    PipelineRecipe("StableDiffusionControlNetXSPipeline", controlnet_xs, controlled),
    PipelineRecipe(
        "StableDiffusionXLControlNetXSPipeline", controlnet_xs_xl, lambda: controlled(POOLED)
    ),
)
