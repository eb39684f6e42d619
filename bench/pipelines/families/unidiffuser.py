"""The pipeline of UniDiffuser, which denoises pictures and texts."""

from collections.abc import Mapping
from typing import Any

from diffusers import UniDiffuserModel, UniDiffuserTextDecoder

from bench.pipelines.image_parts import clip_processor, clip_vision
from bench.pipelines.parts import (
    LONGEST_PROMPT,
    WIDTH,
    assembled,
    clip_text,
    model,
    prompt,
    square,
    vae,
)
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_parts import SIDE, ddim

WORDS = 16  # the width of a text's latent


def unidiffuser() -> Any:
    unet = model(
        UniDiffuserModel,
        text_dim=WORDS,
        clip_img_dim=WIDTH,
        num_text_tokens=LONGEST_PROMPT,
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        sample_size=SIDE // 2,
        patch_size=2,
        activation_fn="gelu",
        num_embeds_ada_norm=1000,
        use_data_type_embedding=True,
    )
    decoder = model(
        UniDiffuserTextDecoder,
        prefix_length=LONGEST_PROMPT,
        prefix_inner_dim=WIDTH,
        prefix_hidden_dim=WORDS,
        vocab_size=64,
        n_positions=64,
        n_embd=WIDTH,
        n_layer=2,
        n_head=2,
    )
    return assembled(
        "UniDiffuserPipeline",
        unet=unet,
        vae=vae(),
        scheduler=ddim(),
        text_encoder=clip_text(),
        text_decoder=decoder,
        image_encoder=clip_vision(),
        clip_image_processor=clip_processor(),
    )


def text_to_image() -> Mapping[str, Any]:
    """Ask for a picture. Guidance sees a new random text in a call of its own, every step."""
    return {**prompt(LONGEST_PROMPT, WIDTH), **square(SIDE)}


RECIPES = (
    PipelineRecipe("UniDiffuserPipeline", unidiffuser, text_to_image, trajectories={"unet": 2}),
)
