"""Hunyuan's image and video transformers."""

import torch

from bench.denoisers.image_inputs import image_and_text, latent_side, latents, packed_side
from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import prompt_mask, rotary, text, text_mask
from bench.denoisers.video_inputs import video_and_text

HUNYUAN_TINY: Config = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 2,
    "text_embed_dim": 16,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 6, 6),
}


def hunyuan_dit(config: Config, full: bool) -> Inputs:
    side = latent_side(config, full)
    clip, t5 = config["text_len"], config["text_len_t5"]
    head = config["hidden_size"] // config["num_attention_heads"]
    return image_and_text(config, full, torch.randn(1, clip, config["cross_attention_dim"])) | {
        "text_embedding_mask": prompt_mask(True, clip),
        "encoder_hidden_states_t5": torch.randn(1, t5, config["cross_attention_dim_t5"]),
        "text_embedding_mask_t5": prompt_mask(True, t5),
        "image_meta_size": torch.tensor([[8.0 * side] * 4 + [0.0] * 2]),
        "style": torch.zeros(1, dtype=torch.long),
        "image_rotary_emb": rotary((side // config["patch_size"]) ** 2, head),
    }


def hunyuan_image(config: Config, full: bool) -> Inputs:
    call = image_and_text(config, full, text(full, 1000, config["text_embed_dim"])) | {
        "hidden_states": latents(config, packed_side(config, full)),
        "encoder_attention_mask": prompt_mask(full, 1000),
    }
    if config["text_embed_2_dim"]:  # the text to write in the image
        call["encoder_hidden_states_2"] = text(full, 128, config["text_embed_2_dim"])
        call["encoder_attention_mask_2"] = prompt_mask(full, 128)
    if config["guidance_embeds"]:
        call["guidance"] = torch.full((1,), 3500.0)
    return call


def hunyuan_video(config: Config, full: bool) -> Inputs:
    """HunyuanVideo: 129 frames of 720x1280."""
    words = text(full, 256, config["text_embed_dim"])
    return video_and_text(config, full, (33, 90, 160), words) | {
        "encoder_attention_mask": text_mask(full, 256),
        "pooled_projections": torch.randn(1, config["pooled_projection_dim"]),
        "guidance": torch.full((1,), 6000.0),
    }


def framepack(config: Config, full: bool) -> Inputs:
    """Framepack: 9 latent frames of 720x1280, and 1 + 1, 2 and 16 frames of history after them."""
    frames, height, width = (9, 90, 160) if full else (2, 4, 4)
    far = 16 if full else 4
    history = {"clean": 2, "history_2x": 2, "history_4x": far}
    latents = {
        f"latents_{name}": torch.randn(1, config["in_channels"], size, height, width)
        for name, size in history.items()
    }
    _, own, *after = torch.arange(1 + frames + 1 + 2 + far).split([1, frames, 1, 2, far])
    first = torch.cat([torch.zeros(1, dtype=torch.int64), after[0]])
    indices = dict(zip(history, (first, *after[1:]), strict=True))
    return {
        **hunyuan_video(config, full),
        "hidden_states": torch.randn(1, config["in_channels"], frames, height, width),
        "image_embeds": text(full, 729, config["image_proj_dim"], few=3),
        "indices_latents": own,
        **latents,
        **{f"indices_latents_{name}": index for name, index in indices.items()},
    }


def hunyuan_video15(config: Config, full: bool) -> Inputs:
    """HunyuanVideo 1.5 image-to-video: 121 frames of 480x848; latent, condition and mask."""
    words = text(full, 1000, config["text_embed_dim"])
    return video_and_text(config, full, (31, 30, 53), words) | {
        "encoder_attention_mask": text_mask(full, 1000),
        "encoder_hidden_states_2": text(full, 256, config["text_embed_2_dim"], few=6),
        "encoder_attention_mask_2": text_mask(full, 256, few=6),
        "image_embeds": text(full, 729, config["image_embed_dim"], few=3),
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "HunyuanDiT2DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 4,
            "patch_size": 2,
            "sample_size": 8,
            "hidden_size": 32,
            # The second half of the blocks takes skips from the first.
            "num_layers": 8,
            "cross_attention_dim": 24,
            "cross_attention_dim_t5": 16,
            "pooled_projection_dim": 12,
            "text_len": 5,
            "text_len_t5": 7,
        },
        hunyuan_dit,
        default={
            "in_channels": 4,
            "patch_size": 2,
            "sample_size": 128,
            "hidden_size": 1408,
            "num_layers": 40,
        },
    ),
    Recipe(
        "HunyuanImageTransformer2DModel",
        {
            "in_channels": 16,
            "out_channels": 16,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "num_single_layers": 2,
            "text_embed_dim": 24,
            "rope_axes_dim": (8, 8),
        },
        hunyuan_image,
    ),
    Recipe("HunyuanVideoTransformer3DModel", HUNYUAN_TINY, hunyuan_video),
    Recipe(
        "HunyuanVideoFramepackTransformer3DModel",
        {
            **HUNYUAN_TINY,
            "has_image_proj": True,
            "image_proj_dim": 16,
            "has_clean_x_embedder": True,
        },
        framepack,
        {"has_image_proj": True, "has_clean_x_embedder": True},
    ),
    Recipe(
        "HunyuanVideo15Transformer3DModel",
        {
            "in_channels": 9,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "num_refiner_layers": 2,
            "text_embed_dim": 16,
            "text_embed_2_dim": 12,
            "image_embed_dim": 16,
            "rope_axes_dim": (4, 6, 6),
        },
        hunyuan_video15,
    ),
)
