"""Pipelines of Kandinsky 5 for images."""

from collections.abc import Mapping
from typing import Any

import torch

from bench.pipelines.parts import denoiser, flow_matching, noise, picture, square, vae
from bench.pipelines.recipe import PipelineRecipe

SIDE = 64


def kandinsky(kind: str, conditioned: bool) -> Any:
    """Build a pipeline for small pictures, of a picture if ``conditioned``."""
    pipe = flow_matching(
        kind,
        denoiser("Kandinsky5Transformer3DModel", visual_cond=conditioned),
        vae=vae(levels=4),
    )
    pipe.resolutions = [(SIDE, SIDE)]
    return pipe


def words() -> dict[str, Any]:
    """Return the states of both text encoders, and where the prompts begin and end."""
    lengths = {"": 7, "negative_": 5}
    given: dict[str, Any] = {}
    for seed, (prefix, length) in enumerate(lengths.items()):
        given[f"{prefix}prompt_embeds_qwen"] = noise(1, length, 16, seed=seed)
        given[f"{prefix}prompt_embeds_clip"] = noise(1, 12, seed=seed)
        given[f"{prefix}prompt_cu_seqlens"] = torch.tensor([0, length], dtype=torch.int32)
    return {**given, **square(SIDE)}


def image_to_image() -> Mapping[str, Any]:
    return {**words(), "image": picture(SIDE)}


RECIPES = (
    PipelineRecipe(
        "Kandinsky5T2IPipeline",
        lambda: kandinsky("Kandinsky5T2IPipeline", conditioned=False),
        words,
        trajectories={"transformer": 2},
    ),
    PipelineRecipe(
        "Kandinsky5I2IPipeline",
        lambda: kandinsky("Kandinsky5I2IPipeline", conditioned=True),
        image_to_image,
        trajectories={"transformer": 2},
    ),
)
