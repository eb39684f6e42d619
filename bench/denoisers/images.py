"""Image transformers that are the only ones of their families."""

import torch

from bench.denoisers.image_inputs import (
    image_and_text,
    latent_side,
    latents,
    packed,
    packed_and_text,
    packed_side,
)
from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import grid, prompt_mask, text, timestep


def ernie_image(config: Config, full: bool) -> Inputs:
    words = text(full, 128, config["text_in_dim"])
    return {
        "hidden_states": latents(config, packed_side(config, full)),
        "timestep": timestep(),
        "text_bth": words,
        "text_lens": torch.full((1,), words.shape[1]),
    }


def hi_dream(config: Config, full: bool) -> Inputs:
    """Llama's states of all its layers, of which the model picks one for every block."""
    t5, llama = config["caption_channels"]
    words = text(full, 128, llama)
    return {
        "hidden_states": latents(config, latent_side(config, full)),
        "timesteps": timestep(),
        "encoder_hidden_states_t5": text(full, 128, t5),
        "encoder_hidden_states_llama3": torch.randn(1 + max(config["llama_layers"]), *words.shape),
        "pooled_embeds": torch.randn(1, config["text_emb_dim"]),
    }


def ideogram4(config: Config, full: bool) -> Inputs:
    """Padding, prompt and image in one sequence; ``indicator`` says which is which (0, 3, 2)."""
    side = packed_side(config, full)
    padding, words, pixels = (256, 256, side * side) if full else (2, 5, side * side)
    prompt = torch.arange(words)[:, None].expand(words, 3)
    places = [torch.zeros(padding, 3, dtype=torch.long), prompt, grid(1, side, side) + 65536]
    roles = torch.cat([torch.full((n,), r) for n, r in ((padding, 0), (words, 3), (pixels, 2))])
    empty = torch.zeros(1, padding + words, config["in_channels"])
    return {
        "hidden_states": torch.cat([empty, packed(config, side)], dim=1),
        "timestep": timestep(0.5),
        "encoder_hidden_states": torch.randn(1, len(roles), config["llm_features_dim"]),
        "position_ids": torch.cat(places)[None],
        "segment_ids": torch.where(roles == 0, -1, 1)[None],
        "indicator": roles[None],
    }


def krea2(config: Config, full: bool) -> Inputs:
    """Text states of several layers: [batch, tokens, layers, width]."""
    side, mask = packed_side(config, full), prompt_mask(full, 512).bool()
    words = mask.shape[1]
    states = torch.randn(1, words, config["num_text_layers"], config["text_hidden_dim"])
    return packed_and_text(config, full, states) | {
        "position_ids": torch.cat([torch.zeros(words, 3), grid(1, side, side).float()]),
        "encoder_attention_mask": mask,
    }


def omni_gen(config: Config, full: bool) -> Inputs:
    """Text, a token for the time, and the image in one sequence; text is attended causally."""
    side = latent_side(config, full)
    words = 64 if full else 7
    place = torch.arange(words + 1 + (side // config["patch_size"]) ** 2)
    seen = (place[None] <= place[:, None]) | (place[:, None] > words)
    return {
        "hidden_states": latents(config, side),
        "timestep": timestep(0.5),
        "input_ids": torch.arange(words)[None] % config["vocab_size"],
        "input_img_latents": [],
        "input_image_sizes": {},
        "attention_mask": seen.float()[None],
        "position_ids": place[None],
    }


def prx(config: Config, full: bool) -> Inputs:
    words = text(full, 256, config["context_in_dim"])
    mask = {"attention_mask": prompt_mask(full, 256).bool()}
    return image_and_text(config, full, words, 0.5) | mask


def uvit(config: Config, full: bool) -> Inputs:
    """Build inputs whose latent is a square of indices into a codebook, all masked at first."""
    side = config["sample_size"] if full else 8
    conditions = config["micro_cond_embed_dim"] // config["micro_cond_encode_dim"]
    return {
        "input_ids": torch.full((1, side, side), config["vocab_size"] - 1),
        "micro_conds": torch.full((1, conditions), 512.0),
        "pooled_text_emb": torch.randn(1, config["cond_embed_dim"]),
        "encoder_hidden_states": text(full, 77, config["encoder_hidden_size"]),
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "ErnieImageTransformer2DModel",
        {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_layers": 2,
            "ffn_hidden_size": 48,
            "in_channels": 16,
            "out_channels": 16,
            "text_in_dim": 24,
            "rope_axes_dim": (4, 6, 6),
        },
        ernie_image,
    ),
    Recipe(
        "HiDreamImageTransformer2DModel",
        {
            "patch_size": 2,
            "in_channels": 4,
            "num_layers": 4,
            "num_single_layers": 4,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "caption_channels": [24, 20],
            "text_emb_dim": 12,
            "axes_dims_rope": (4, 2, 2),
            "max_resolution": (8, 8),
            "llama_layers": [0, 1, 2, 3, 3, 3, 3, 3],
        },
        hi_dream,
        # The published model. The defaults of the class lack required options.
        default={
            "patch_size": 2,
            "in_channels": 16,
            "caption_channels": [4096, 4096],
            "axes_dims_rope": (64, 32, 32),
            "llama_layers": [*range(32), *[31] * 16],
        },
    ),
    Recipe(
        "Ideogram4Transformer2DModel",
        {
            "in_channels": 16,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "adaln_dim": 12,
            "llm_features_dim": 24,
            "mrope_section": (4, 2, 2),
        },
        ideogram4,
    ),
    Recipe(
        "Krea2Transformer2DModel",
        {
            "in_channels": 16,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "intermediate_size": 48,
            "timestep_embed_dim": 16,
            "text_hidden_dim": 24,
            "num_text_layers": 3,
            "text_num_attention_heads": 2,
            "text_num_key_value_heads": 2,
            "text_intermediate_size": 32,
            "axes_dims_rope": (4, 2, 2),
        },
        krea2,
    ),
    Recipe(
        "OmniGenTransformer2DModel",
        {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 48,
            "num_layers": 2,
            "pad_token_id": 19,
            "vocab_size": 20,
            "rope_scaling": {"short_factor": [1.0] * 8, "long_factor": [1.0] * 8},
            "pos_embed_max_size": 8,
            "time_step_dim": 16,
        },
        omni_gen,
        # The class takes None for no scaling and fails on it.
        default={"rope_scaling": {"short_factor": [1.0] * 48, "long_factor": [1.0] * 48}},
    ),
    Recipe(
        "PRXTransformer2DModel",
        {
            "in_channels": 4,
            "context_in_dim": 24,
            "hidden_size": 32,
            "num_heads": 2,
            "depth": 2,
            "axes_dim": [8, 8],
        },
        prx,
    ),
    Recipe(
        "UVit2DModel",
        {
            "hidden_size": 32,
            "cond_embed_dim": 12,
            "micro_cond_encode_dim": 8,
            "micro_cond_embed_dim": 40,
            "encoder_hidden_size": 20,
            "vocab_size": 60,
            "codebook_size": 50,
            "in_channels": 24,
            "block_out_channels": 24,
            "block_num_heads": 2,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "sample_size": 8,
        },
        uvit,
        options={},
    ),
)
