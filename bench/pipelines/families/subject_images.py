"""Pipelines that draw the subject of a picture: BLIP-Diffusion and Paint by Example."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.pipelines.deprecated.blip_diffusion.blip_image_processing import BlipImageProcessor
from diffusers.pipelines.deprecated.blip_diffusion.modeling_ctx_clip import ContextCLIPTextModel
from diffusers.pipelines.deprecated.paint_by_example.image_encoder import (
    PaintByExampleImageEncoder,
)
from torch import Tensor, nn

from bench.pipelines.image_parts import PICTURE, clip_processor, clip_vision_config
from bench.pipelines.parts import (
    WIDTH,
    assembled,
    clip_config,
    mask,
    model,
    picture,
    square,
    tokenizer,
)
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_parts import SIDE, small_unet, stable_parts

QUERIES = 4  # the tokens of a subject


class SubjectEncoder(nn.Module):
    """Stands in for BLIP-2's encoder of a picture and the name of its subject: one layer."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_query_tokens=QUERIES)
        self.layer = nn.Linear(PICTURE, QUERIES * WIDTH)

    def forward(self, image_input: Tensor, text_input: list[str], return_dict: bool) -> Tensor:
        assert not return_dict
        assert len(image_input) == len(text_input)
        return self.layer(image_input.mean((1, 2))).unflatten(-1, (QUERIES, WIDTH))


def blip_diffusion() -> Any:
    parts = stable_parts(
        text_encoder=model(lambda: ContextCLIPTextModel(clip_config())),
        tokenizer=tokenizer(),
        qformer=model(SubjectEncoder),
        image_processor=BlipImageProcessor(size={"height": PICTURE, "width": PICTURE}),
    )
    del parts["requires_safety_checker"]
    return assembled("BlipDiffusionPipeline", **parts)


def paint_by_example() -> Any:
    config = clip_vision_config(num_hidden_layers=4)
    parts = stable_parts(
        unet=small_unet(in_channels=9),
        image_encoder=model(lambda: PaintByExampleImageEncoder(config, proj_size=WIDTH)),
        feature_extractor=clip_processor(),
    )
    return assembled("PaintByExamplePipeline", **parts)


def drawn_subject() -> Mapping[str, Any]:
    return {
        **square(SIDE),
        "prompt": ["on a hill"],
        "reference_image": picture(),
        "source_subject_category": ["cat"],
        "target_subject_category": ["dog"],
        "output_type": "np",
    }


def painted() -> Mapping[str, Any]:
    return {"example_image": picture(seed=1), "image": picture(), "mask_image": mask()}


RECIPES = (
    PipelineRecipe("BlipDiffusionPipeline", blip_diffusion, drawn_subject),
    PipelineRecipe("PaintByExamplePipeline", paint_by_example, painted),
)
