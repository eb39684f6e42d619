"""Pipelines of DreamLite, which edit a picture."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import diffusers

from bench.pipelines.parts import (
    WIDTH,
    assembled,
    denoiser,
    model,
    picture,
    qwen3_text,
    square,
    tokenizer,
)
from bench.pipelines.recipe import PipelineRecipe


class TextOnlyProcessor:
    """Stands in for the processor of a vision-language model: it reads the prompts alone."""

    def __init__(self) -> None:
        self.tokenizer = tokenizer()

    def __call__(self, text: list[str], images: list[Any], **options: Any) -> Any:
        assert len(text) == len(images)
        return self.tokenizer(text, **options)


def dreamlite(kind: str) -> Any:
    autoencoder = model(
        diffusers.AutoencoderTiny,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    return assembled(
        kind,
        text_encoder=qwen3_text(),
        processor=TextOnlyProcessor(),
        vae=autoencoder,
        unet=denoiser("DreamLiteUNetModel", cross_attention_dim=WIDTH),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def edit() -> Mapping[str, Any]:
    return {**square(32), "prompt": "a cat", "image": picture()}


RECIPES = tuple(
    PipelineRecipe(kind, partial(dreamlite, kind), edit)
    for kind in ("DreamLitePipeline", "DreamLiteMobilePipeline")
)
