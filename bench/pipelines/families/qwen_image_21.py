"""The pipeline of Qwen-Image 2.1."""

from collections.abc import Mapping
from typing import Any

from bench.pipelines.autoencoders import causal_vae
from bench.pipelines.parts import denoiser, flow_matching, picture
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stand_ins import Processor, vision_language_model

KIND = "QwenImage21Pipeline"


def qwen() -> Any:
    """Build a pipeline; a picture has four channels, and is sixteen times as high as its latent."""
    return flow_matching(
        KIND,
        denoiser("QwenImage21Transformer2DModel"),
        vae=causal_vae(4, channels=16, kind="AutoencoderKLQwenImage21", decoder_base_dim=4),
        text_encoder=vision_language_model(24),
        processor=Processor(),
    )


def edit() -> Mapping[str, Any]:
    """Return a call with a picture; its keys and values are cached at the first step."""
    words = {"prompt": "a cat", "negative_prompt": "a dog", "true_cfg_scale": 3.0}
    return {**words, "image": picture(64), "output_resolution": 64}


RECIPES = (PipelineRecipe(KIND, qwen, edit, trajectories={"transformer": 2}),)
