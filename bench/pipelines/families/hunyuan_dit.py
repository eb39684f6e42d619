"""Pipelines of Hunyuan-DiT."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import (
    assembled,
    denoiser,
    masks,
    model,
    pictures,
    prompt,
    square,
    vae,
)
from bench.pipelines.recipe import PipelineRecipe

SIDE = 64


def hunyuan_dit(kind: str, options: Mapping[str, Any]) -> Any:
    """Build a pipeline with these parts and options; it expects a latent an eighth as high."""
    return assembled(
        kind,
        transformer=denoiser("HunyuanDiT2DModel"),
        scheduler=diffusers.DDPMScheduler(),
        vae=vae(levels=4),
        requires_safety_checker=False,
        **options,
    )


def controlnet() -> dict[str, Any]:
    net = model(
        diffusers.HunyuanDiT2DControlNetModel,
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=32,
        transformer_num_layers=8,
        cross_attention_dim=24,
        cross_attention_dim_t5=16,
        pooled_projection_dim=12,
        text_len=5,
        text_len_t5=7,
    )
    return {"controlnet": net}


def inputs(kind: str) -> Mapping[str, Any]:
    """Return the embeddings of both text encoders, and the other inputs the pipeline takes."""
    second = {f"{name}_2": value for name, value in {**prompt(7, 16), **masks()}.items()}
    size = {**square(SIDE), "use_resolution_binning": False}
    return {**prompt(5, 24), **masks(5), **second, **size, **pictures(kind, SIDE)}


def recipe(kind: str, options: Any = dict) -> PipelineRecipe:
    return PipelineRecipe(kind, lambda: hunyuan_dit(kind, options()), lambda: inputs(kind))


RECIPES = (
    recipe("HunyuanDiTPipeline"),
    recipe("HunyuanDiTControlNetPipeline", controlnet),
    recipe("HunyuanDiTPAGPipeline", lambda: {"pag_applied_layers": "blocks.1"}),
)
