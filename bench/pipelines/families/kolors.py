"""Pipelines of Kolors: a U-Net like that of Stable Diffusion XL, with one other text encoder."""

from collections.abc import Mapping
from typing import Any

import torch

# diffusers itself gives them only where sentencepiece, which its tokenizer needs, is installed.
from diffusers.pipelines.kolors.pipeline_kolors import KolorsPipeline
from diffusers.pipelines.kolors.pipeline_kolors_img2img import KolorsImg2ImgPipeline
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from diffusers.pipelines.pag.pipeline_pag_kolors import KolorsPAGPipeline
from torch import nn

from bench.pipelines.parts import model, picture, prompt, tokenizer
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_diffusion import SIZE, TOKENS, XL_ENCODER, xl, xl_unet

WIDTH = 24  # of the text encoder
LONGEST = 256  # prompt, to which the pipeline pads


class Positions:
    """A tokenizer that also returns the positions of the tokens, as that of ChatGLM does."""

    def __init__(self) -> None:
        self.inner = tokenizer()

    def __call__(self, text: Any, **options: Any) -> Any:
        tokens = self.inner(text, **options)
        tokens["position_ids"] = torch.arange(tokens["input_ids"].shape[1])[None]
        return tokens


def chat_glm() -> Any:
    config = ChatGLMConfig(
        num_layers=2,
        padded_vocab_size=64,
        hidden_size=WIDTH,
        ffn_hidden_size=48,
        kv_channels=WIDTH // 2,
        num_attention_heads=2,
        seq_length=LONGEST,
        original_rope=True,
    )
    built = model(lambda: ChatGLMModel(config, empty_init=False))
    for weight in built.parameters():
        if weight.dim() == 1:  # of a norm, which the class leaves without values
            nn.init.ones_(weight)
    return built


def kolors(kind: type, **parts: Any) -> Any:
    """Build a pipeline whose U-Net projects the states of the text encoder."""
    times = 6 * XL_ENCODER["addition_time_embed_dim"]
    unet = xl_unet(encoder_hid_dim=WIDTH, projection_class_embeddings_input_dim=WIDTH + times)
    return xl(kind, unet=unet, **parts)


def from_a_picture() -> Any:
    """Build a pipeline that takes no pooled embedding: it has a text encoder."""
    return kolors(KolorsImg2ImgPipeline, text_encoder=chat_glm(), tokenizer=Positions())


def from_a_prompt() -> Mapping[str, Any]:
    return {**prompt(TOKENS, WIDTH, pooled=WIDTH), **SIZE}


PICTURE: Mapping[str, Any] = {
    "prompt": "cat",
    "image": picture(),
    "strength": 0.8,
}

RECIPES = (
    PipelineRecipe("KolorsPipeline", lambda: kolors(KolorsPipeline), from_a_prompt),
    PipelineRecipe("KolorsImg2ImgPipeline", from_a_picture, lambda: PICTURE, steps=10),
    PipelineRecipe(
        "KolorsPAGPipeline",
        lambda: kolors(KolorsPAGPipeline, pag_applied_layers="mid"),
        from_a_prompt,
    ),
)
