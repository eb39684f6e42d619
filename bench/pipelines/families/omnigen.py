"""The pipeline of OmniGen."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.omnigen import pipeline_omnigen, processor_omnigen
from PIL import Image
from torch import Tensor

from bench.pipelines.parts import denoiser, flow_matching, picture, square, tokenizer, vae
from bench.pipelines.recipe import PipelineRecipe

KIND = "OmniGenPipeline"
SIDE = 64


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def compose(steps: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def apply(value: Any) -> Any:
        for step in steps:
            value = step(value)
        return value

    return apply


# What the pipeline uses of torchvision.transforms.
TRANSFORMS = SimpleNamespace(
    Compose=compose,
    Lambda=lambda function: function,
    ToTensor=lambda: to_tensor,
    Normalize=lambda mean, std, inplace: lambda image: (image - mean[0]) / std[0],  # noqa: ARG005
)


def omnigen() -> Any:
    """Build a pipeline; its pictures are eight times as high as their latents."""
    if not hasattr(processor_omnigen, "transforms"):
        processor_omnigen.transforms = TRANSFORMS
        pipeline_omnigen.OmniGenMultiModalProcessor = processor_omnigen.OmniGenMultiModalProcessor
    return flow_matching(
        KIND,
        denoiser("OmniGenTransformer2DModel", vocab_size=64, pad_token_id=0),
        vae=vae(levels=4),
        tokenizer=tokenizer(),
    )


def edit() -> Mapping[str, Any]:
    words = {"prompt": ["a cat <img><|image_1|></img>"]}
    return {**words, "input_images": [[picture(SIDE)]], **square(SIDE)}


RECIPES = (PipelineRecipe(KIND, omnigen, edit),)
