"""Pipelines of Lumina."""

from collections.abc import Mapping
from typing import Any

from bench.pipelines.parts import denoiser, flow_matching, masks, prompt, square
from bench.pipelines.recipe import PipelineRecipe


def lumina(kind: str, transformer: str) -> Any:
    return flow_matching(kind, denoiser(transformer))


def words(width: int) -> Mapping[str, Any]:
    return {**prompt(7, width), **masks(), **square(64)}


RECIPES = (
    PipelineRecipe(
        "LuminaPipeline",
        lambda: lumina("LuminaPipeline", "LuminaNextDiT2DModel"),
        lambda: {**words(24), "negative_prompt": None},
    ),
    PipelineRecipe(
        "Lumina2Pipeline",
        lambda: lumina("Lumina2Pipeline", "Lumina2Transformer2DModel"),
        lambda: words(20),
        trajectories={"transformer": 2},
    ),
)
