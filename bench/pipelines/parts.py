"""Parts of small pipelines: denoisers, autoencoders, text encoders, tokenizers, embeddings."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from bench.denoisers import RECIPES
from bench.denoisers import tiny as from_recipe
from bench.denoisers.build import seeded

WIDTH = 32
LONGEST_PROMPT = 16


def assembled(kind: str | type, **parts: Any) -> Any:
    """Build a pipeline of these parts. Its other parts are None, or what the class takes.

    Args:
        kind: The class or its name in diffusers, which lacks some classes without their libraries.
        parts: The arguments of the class.
    """
    pipeline = getattr(diffusers, kind) if isinstance(kind, str) else kind
    taken = inspect.signature(pipeline).parameters
    missing = {n: None for n, p in taken.items() if p.default is p.empty and n not in parts}
    return pipeline(**missing, **parts)


def denoiser(kind: str, **config: Any) -> Any:
    """Build the small model of the recipe for ``kind``, with these constructor arguments."""
    recipe = RECIPES[kind]
    return from_recipe(replace(recipe, tiny={**recipe.tiny, **config}))


def model(kind: Callable[..., Any], **config: Any) -> Any:
    """Build a model of any class with seeded weights, in eval mode."""
    return seeded(lambda: kind(**config))


def vae(**config: Any) -> Any:
    """Build an autoencoder of images with two levels and four channels."""
    defaults: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 32,
    }
    return model(diffusers.AutoencoderKL, **(defaults | config))


def tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """Build a tokenizer of letters between a start and an end, for any text encoder."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    letters = [chr(code) for code in range(97, 123)]
    vocabulary = {piece: i for i, piece in enumerate([*special, *letters])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=special[-1]))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    ends = [(piece, vocabulary[piece]) for piece in ("<s>", "</s>")]
    words.post_processor = processors.TemplateProcessing("<s> $A </s>", "$A $B", ends)
    defaults: dict[str, Any] = {
        "model_max_length": LONGEST_PROMPT,
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    return PreTrainedTokenizerFast(tokenizer_object=words, **(defaults | options))


def clip_config(**config: Any) -> CLIPTextConfig:
    defaults: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "projection_dim": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": LONGEST_PROMPT,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return CLIPTextConfig(**(defaults | config))


def clip_text(**config: Any) -> Any:
    return model(lambda: CLIPTextModel(clip_config(**config)))


def clip_text_with_projection(**config: Any) -> Any:
    return model(lambda: CLIPTextModelWithProjection(clip_config(**config)))


def t5_text(**config: Any) -> Any:
    defaults: dict[str, Any] = {
        "vocab_size": 64,
        "d_model": WIDTH,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
    }
    return model(lambda: T5EncoderModel(T5Config(**(defaults | config))))


def qwen3_text(**config: Any) -> Any:
    defaults: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    return model(lambda: Qwen3Model(Qwen3Config(**(defaults | config))))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def picture(side: int = 32, seed: int = 0) -> Image.Image:
    """Return a square picture of random colours."""
    values = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def mask(side: int = 32) -> Image.Image:
    """Return a mask that covers two quarters of a square picture."""
    quarters = np.kron([[0, 255], [255, 0]], np.ones((side // 2, side // 2)))
    return Image.fromarray(quarters.astype(np.uint8))


def prompt(tokens: int, width: int, pooled: int = 0) -> dict[str, Tensor]:
    """Return embeddings of a prompt and of a negative one, and pooled ones if they have a width."""
    shapes: dict[str, tuple[int, ...]] = {"prompt_embeds": (1, tokens, width)}
    if pooled:
        shapes["pooled_prompt_embeds"] = (1, pooled)
    return {
        prefix + name: noise(*shape, seed=seed)
        for seed, prefix in enumerate(("", "negative_"))
        for name, shape in shapes.items()
    }


def square(side: int) -> Mapping[str, int]:
    return {"height": side, "width": side}
