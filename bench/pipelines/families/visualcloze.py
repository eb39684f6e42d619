"""Pipelines of VisualCloze, which are built on FLUX."""

from collections.abc import Mapping
from typing import Any

from bench.pipelines.families.flux import FILLED, SIDE, flux
from bench.pipelines.parts import LONGEST_PROMPT, WIDTH, clip_text, picture, t5_text, tokenizer
from bench.pipelines.recipe import PipelineRecipe


def visualcloze(kind: str) -> Any:
    parts = {
        "text_encoder": clip_text(),
        "text_encoder_2": t5_text(),
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer(),
        "resolution": SIDE,
    }
    return flux(kind, parts, **FILLED, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH)


def words() -> Mapping[str, Any]:
    """Return a call with an example, and a picture to treat as the example's."""
    return {
        "task_prompt": "a cat",
        "content_prompt": "a dog",
        "image": [[picture(SIDE, seed=1), picture(SIDE, seed=2)], [picture(SIDE), None]],
        "max_sequence_length": LONGEST_PROMPT,
    }


def both_stages() -> Mapping[str, Any]:
    return {**words(), "upsampling_height": SIDE, "upsampling_width": SIDE}


RECIPES = (
    PipelineRecipe(
        "VisualClozeGenerationPipeline",
        lambda: visualcloze("VisualClozeGenerationPipeline"),
        words,
    ),
    PipelineRecipe(
        "VisualClozePipeline",
        lambda: visualcloze("VisualClozePipeline"),
        both_stages,
        trajectories={"transformer": 2},
    ),
)
