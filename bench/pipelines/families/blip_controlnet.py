"""BLIP-Diffusion with a ControlNet, which draws the subject of a picture."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from diffusers.pipelines.deprecated.blip_diffusion import BlipImageProcessor, ContextCLIPTextModel
from torch import Tensor, nn

from bench.pipelines.parts import WIDTH, clip_config, model, noise, picture, tokenizer
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_diffusion import SIZE, controlnet, sd


class Queries(nn.Module):
    """Stands in for the model of vision and language: its queries do not depend on the picture."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_query_tokens=tokens)
        self.queries = noise(1, tokens, WIDTH)
        self.device = self.queries.device

    def forward(self, **_: Any) -> Tensor:
        return self.queries


def build() -> Any:
    return sd(
        "BlipDiffusionControlNetPipeline",
        controlnet=controlnet(),
        text_encoder=model(lambda: ContextCLIPTextModel(clip_config())),
        tokenizer=tokenizer(),
        qformer=Queries(tokens=4),
        image_processor=BlipImageProcessor(),
        ctx_begin_pos=2,
    )


def call() -> Mapping[str, Any]:
    return {
        **SIZE,
        "prompt": ["on a hill"],
        "reference_image": picture(),
        "condtioning_image": picture(seed=1),
        "source_subject_category": ["cat"],
        "target_subject_category": ["dog"],
        "prompt_reps": 1,
        "output_type": "pt",
    }


RECIPES = (PipelineRecipe("BlipDiffusionControlNetPipeline", build, call),)
