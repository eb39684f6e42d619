"""Pipelines of Kandinsky 2.1."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

from bench.pipelines.image_parts import (
    SIMPLE_ATTENTION,
    clip_processor,
    clip_vision,
    image_prior,
    movq,
    prior_scheduler,
)
from bench.pipelines.parts import (
    WIDTH,
    assembled,
    clip_text_with_projection,
    denoiser,
    mask,
    model,
    noise,
    picture,
    square,
    tokenizer,
)
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_parts import ddim

INPAINTING = 9  # the channels of a latent, a masked one and the mask


def multilingual_text() -> Any:
    """Build a text encoder of many languages, with states and an embedding of the same width."""
    config = MCLIPConfig(
        WIDTH,
        WIDTH,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_attention_heads=4,
        num_hidden_layers=2,
        vocab_size=64,
        max_position_embeddings=80,
        pad_token_id=0,
    )
    return model(lambda: MultilingualCLIP(config))


def decoder(channels: int) -> dict[str, Any]:
    """Build the parts that turn an embedding of a picture and a prompt into a picture."""
    unet = denoiser(
        "UNet2DConditionModel",
        **SIMPLE_ATTENTION,
        in_channels=channels,
        out_channels=8,
        addition_embed_type="text_image",
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="text_image_proj",
    )
    return {
        "unet": unet,
        "movq": movq(),
        "text_encoder": multilingual_text(),
        "tokenizer": tokenizer(),
        "scheduler": ddim(),
    }


def prior(prefix: str = "") -> dict[str, Any]:
    """Build the parts that turn a prompt into an embedding of a picture."""
    parts = {
        "prior": image_prior(),
        "image_encoder": clip_vision(),
        "text_encoder": clip_text_with_projection(),
        "tokenizer": tokenizer(),
        "scheduler": prior_scheduler(),
        "image_processor": clip_processor(),
    }
    return {prefix + name: part for name, part in parts.items()}


def kandinsky(kind: str) -> Any:
    if "Prior" in kind:
        return assembled(kind, **prior())
    parts = decoder(INPAINTING if "Inpaint" in kind else 4)
    return assembled(kind, **parts, **(prior("prior_") if "Combined" in kind else {}))


def words() -> dict[str, Any]:
    return {"prompt": "a cat", "negative_prompt": "a dog", "output_type": "pt"}


def combined() -> Mapping[str, Any]:
    return {**words(), **square(64), "prior_num_inference_steps": 7}


def picture_embeddings() -> dict[str, Any]:
    return {"image_embeds": noise(1, WIDTH), "negative_image_embeds": noise(1, WIDTH, seed=1)}


def decoded() -> Mapping[str, Any]:
    return {**words(), **square(64), **picture_embeddings()}


def from_image(call: Mapping[str, Any]) -> dict[str, Any]:
    return {**call, "image": picture(64), "strength": 0.8}


def inpainting(call: Mapping[str, Any]) -> dict[str, Any]:
    return {**call, "image": picture(64), "mask_image": mask(64)}


RECIPES = tuple(
    PipelineRecipe(kind, partial(kandinsky, kind), call, steps)
    for kind, call, steps in (
        ("KandinskyPriorPipeline", words, 7),
        ("KandinskyPipeline", decoded, 7),
        ("KandinskyImg2ImgPipeline", lambda: from_image(decoded()), 9),
        ("KandinskyInpaintPipeline", lambda: inpainting(decoded()), 7),
        ("KandinskyCombinedPipeline", combined, 7),
        ("KandinskyImg2ImgCombinedPipeline", lambda: from_image(combined()), 9),
        ("KandinskyInpaintCombinedPipeline", lambda: inpainting(combined()), 7),
    )
)
