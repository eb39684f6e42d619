"""Pipelines of Bria."""

from collections.abc import Mapping
from typing import Any

from transformers import SmolLM3Config, SmolLM3ForCausalLM

from bench.pipelines.autoencoders import causal_vae, flux2_vae
from bench.pipelines.parts import (
    denoiser,
    flow_matching,
    mask,
    model,
    noise,
    picture,
    prompt,
    square,
    tokenizer,
    vae,
)
from bench.pipelines.recipe import PipelineRecipe


def bria(kind: str, transformer: str, **parts: Any) -> Any:
    """Build a pipeline with these parts beside the transformer."""
    return flow_matching(kind, denoiser(transformer), **parts)


def text_encoder() -> Any:
    """Build a language model; the denoiser takes the states of all its layers."""
    config = SmolLM3Config(
        vocab_size=64,
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return model(lambda: SmolLM3ForCausalLM(config))


def fibo(kind: str) -> Any:
    # Their pictures are sixteen times as high as their latents.
    autoencoder = causal_vae(4, channels=16, kind="AutoencoderKLWan")
    parts = {"vae": autoencoder, "text_encoder": text_encoder(), "tokenizer": tokenizer()}
    return bria(kind, "BriaFiboTransformer2DModel", **parts)


def fibo_2() -> Any:
    return bria("BriaFibo2Pipeline", "BriaFibo2Transformer2DModel", vae=flux2_vae(levels=3))


def words() -> Mapping[str, Any]:
    return {"prompt": "a cat", "negative_prompt": "a dog", **square(64)}


def edit() -> Mapping[str, Any]:
    prompt = '{"edit_instruction": "a cat"}'
    return {**words(), "prompt": prompt, "image": picture(64), "mask": mask(64)}


def edit_2() -> Mapping[str, Any]:
    """Return a call with a picture; the text encoder's states are of three bundles."""
    states = {
        "prompt_embeds": noise(1, 3, 7, 24),
        "negative_prompt_embeds": noise(1, 3, 7, 24, seed=1),
    }
    return {**states, "image": picture(32), **square(32)}


RECIPES = (
    PipelineRecipe(
        "BriaPipeline",
        lambda: bria("BriaPipeline", "BriaTransformer2DModel", vae=vae()),
        lambda: {**prompt(7, 24), **square(16)},
    ),
    PipelineRecipe("BriaFiboPipeline", lambda: fibo("BriaFiboPipeline"), words),
    PipelineRecipe("BriaFiboEditPipeline", lambda: fibo("BriaFiboEditPipeline"), edit),
    PipelineRecipe("BriaFibo2Pipeline", fibo_2, edit_2, trajectories={"transformer": 2}),
)
