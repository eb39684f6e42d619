"""The pipeline of HiDream."""

from collections.abc import Mapping
from typing import Any

from bench.pipelines.parts import denoiser, flow_matching, noise
from bench.pipelines.recipe import PipelineRecipe

KIND = "HiDreamImagePipeline"


def hidream() -> Any:
    """Build a pipeline for pictures with latents of 8x8, to which it scales every size."""
    transformer = denoiser("HiDreamImageTransformer2DModel")
    pipe = flow_matching(KIND, transformer)
    pipe.default_sample_size = 8
    return pipe


def text_to_image() -> Mapping[str, Any]:
    """Return the states of T5 and of all layers of Llama, and the pooled ones of CLIP."""
    shapes = {
        "prompt_embeds_t5": (1, 7, 24),
        "prompt_embeds_llama3": (4, 1, 7, 20),
        "pooled_prompt_embeds": (1, 12),
    }
    return {
        prefix + name: noise(*shape, seed=seed)
        for seed, prefix in enumerate(("", "negative_"))
        for name, shape in shapes.items()
    }


RECIPES = (PipelineRecipe(KIND, hidream, text_to_image),)
