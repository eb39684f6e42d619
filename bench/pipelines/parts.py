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
from torch import Tensor, nn
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
from bench.seeding import seeded

WIDTH = 32
LONGEST_PROMPT = 16
STRENGTH = 0.7  # the share of the steps that pipelines do which start from a picture


def assembled(kind: str | type, **parts: Any) -> Any:
    """Build a pipeline of these parts. Its other parts are None, its other options the defaults."""
    pipeline: Any = getattr(diffusers, kind) if isinstance(kind, str) else kind
    required, _ = pipeline._get_signature_keys(pipeline)
    return pipeline(**(dict.fromkeys(required) | parts))


def flow_matching(kind: str, transformer: Any, **parts: Any) -> Any:
    """Build a pipeline of a transformer, a scheduler of flow matching, and these parts."""
    defaults = {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}
    return assembled(kind, transformer=transformer, **(defaults | parts))


def denoiser(kind: str, **config: Any) -> Any:
    """Build the small model of the recipe for ``kind``, with these constructor arguments."""
    recipe = RECIPES[kind]
    return from_recipe(replace(recipe, tiny={**recipe.tiny, **config}))


def model(kind: Callable[..., Any], **config: Any) -> Any:
    """Build a model of any class with seeded weights, in eval mode."""
    return seeded(lambda: kind(**config))


def vae(levels: int = 2, kind: str = "AutoencoderKL", **config: Any) -> Any:
    """Build an autoencoder of images with so many levels and four channels."""
    defaults: dict[str, Any] = {
        "block_out_channels": (8,) * levels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 32,
    }
    return model(getattr(diffusers, kind), **(defaults | config))


def tokenizer(ends: bool = True, **options: Any) -> PreTrainedTokenizerFast:
    """Build a tokenizer of letters, for any text encoder. ``ends`` adds a start and an end."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    letters = [chr(code) for code in range(97, 123)]
    vocabulary = {piece: i for i, piece in enumerate([*special, *letters])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=special[-1]))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if ends:
        pieces = [(piece, vocabulary[piece]) for piece in ("<s>", "</s>")]
        words.post_processor = processors.TemplateProcessing("<s> $A </s>", "$A $B", pieces)
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


def prompt(tokens: int, width: int, pooled: int = 0) -> dict[str, Any]:
    """Return embeddings of a prompt and of a negative one, and pooled ones if they have a width."""
    shapes: dict[str, tuple[int, ...]] = {"prompt_embeds": (1, tokens, width)}
    if pooled:
        shapes["pooled_prompt_embeds"] = (1, pooled)
    return {
        prefix + name: noise(*shape, seed=seed)
        for seed, prefix in enumerate(("", "negative_"))
        for name, shape in shapes.items()
    }


def masks(tokens: int = 7, dtype: torch.dtype = torch.long) -> dict[str, Tensor]:
    """Return the mask of a prompt of so many tokens, and of a negative one that is shorter."""
    shorter = torch.arange(tokens)[None] < tokens - 2
    return {
        "prompt_attention_mask": torch.ones(1, tokens, dtype=dtype),
        "negative_prompt_attention_mask": shorter.to(dtype),
    }


def square(side: int) -> dict[str, Any]:
    return {"height": side, "width": side}


def taken(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of ``options`` that the pipeline's call takes."""
    names = inspect.signature(getattr(diffusers, kind).__call__).parameters
    return {name: value for name, value in options.items() if name in names}


def pictures(kind: str, side: int) -> dict[str, Any]:
    """Return the usual inputs of the pipeline's call that are pictures, and their strength."""
    usual = {
        "image": picture(side),
        "mask_image": mask(side),
        "control_image": picture(side, seed=1),
        "control_mask": mask(side),
        "image_reference": picture(side, seed=2),
        "strength": STRENGTH,
    }
    return taken(kind, usual)


def steps_of(kind: str) -> int:
    """Return for how many steps to ask a pipeline that is to do seven of them."""
    return 10 if taken(kind, {"strength": STRENGTH}) else 7


def positive(words: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the embeddings of the prompt without those of the negative one."""
    return {name: value for name, value in words.items() if not name.startswith("negative_")}


class StandIn(nn.Module):
    """A text encoder that only has a dtype and a device. Pipelines ask for them."""

    dtype = torch.float32
    device = torch.device("cpu")
