"""CogView and GLM-Image."""

import torch

from bench.denoisers.image_inputs import image_and_text, latent_side
from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import text

COGVIEW_TINY: Config = {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "text_embed_dim": 24,
    "time_embed_dim": 16,
    "condition_dim": 8,
}


def cog_view(config: Config, full: bool) -> Inputs:
    size = torch.full((1, 2), 8.0 * latent_side(config, full))
    return image_and_text(config, full, text(full, 224, config["text_embed_dim"]), 500) | {
        "original_size": size,
        "target_size": size.clone(),
        "crop_coords": torch.zeros(1, 2),
    }


def glm_image(config: Config, full: bool) -> Inputs:
    """Build inputs with a token of the autoregressive prior for every patch."""
    side = latent_side(config, full)
    tokens = (side // config["patch_size"]) ** 2
    return image_and_text(config, full, text(full, 64, config["text_embed_dim"])) | {
        "prior_token_id": torch.arange(tokens)[None] % config["prior_vq_quantizer_codebook_size"],
        "prior_token_drop": torch.zeros(1, tokens, dtype=torch.bool),
        "target_size": torch.full((1, 2), 8.0 * side),
        "crop_coords": torch.zeros(1, 2),
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "CogView3PlusTransformer2DModel",
        {**COGVIEW_TINY, "pos_embed_max_size": 8, "sample_size": 8},
        cog_view,
    ),
    Recipe(
        "CogView4Transformer2DModel",
        {**COGVIEW_TINY, "pos_embed_max_size": 8, "sample_size": 8, "rope_axes_dim": (8, 8)},
        cog_view,
    ),
    Recipe(
        "GlmImageTransformer2DModel",
        {**COGVIEW_TINY, "prior_vq_quantizer_codebook_size": 20},
        glm_image,
    ),
)
