"""Recipes of the image denoisers of diffusers: U-Nets and image transformers."""

import torch
from torch import Tensor

from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import grid, rotary, text, timestep


def latent_side(config: Config, full: bool, native: int = 128, tiny: int = 8) -> int:
    """Height and width of the latent: the config's own where it names one."""
    return (config.get("sample_size") or native) if full else tiny


def packed_side(config: Config, full: bool) -> int:
    """The same for latents that are a sequence of 2×2 patches."""
    return latent_side(config, full, native=64, tiny=4)


def latents(config: Config, side: int) -> Tensor:
    return torch.randn(1, config["in_channels"], side, side)


def packed(config: Config, side: int) -> Tensor:
    """A square latent as a sequence of ``side * side`` tokens."""
    return torch.randn(1, side * side, config["in_channels"])


def text_mask(full: bool, tokens: int) -> Tensor:
    """What a tokenizer returns for a prompt that fills all but the last two places."""
    length = tokens if full else 5
    return (torch.arange(length) < length - 2).long()[None]


def image_and_text(config: Config, full: bool, words: Tensor, time: float = 500.0) -> Inputs:
    """What most transformers take."""
    return {
        "hidden_states": latents(config, latent_side(config, full)),
        "timestep": timestep(time),
        "encoder_hidden_states": words,
    }


def packed_and_text(config: Config, full: bool, words: Tensor) -> Inputs:
    """The same with a packed latent, and times from 0 to 1."""
    return {
        "hidden_states": packed(config, packed_side(config, full)),
        "timestep": timestep(0.5),
        "encoder_hidden_states": words,
    }


def placed_and_text(config: Config, full: bool, tokens: int) -> Inputs:
    """The same with the coordinates of every token."""
    side, words = packed_side(config, full), text(full, tokens, config["joint_attention_dim"])
    return packed_and_text(config, full, words) | {
        "txt_ids": torch.zeros(words.shape[1], 3),
        "img_ids": grid(1, side, side).float(),
    }


def flux(config: Config, full: bool) -> Inputs:
    call = placed_and_text(config, full, 512)
    call["pooled_projections"] = torch.randn(1, config["pooled_projection_dim"])
    if config["guidance_embeds"]:
        call["guidance"] = torch.full((1,), 3.5)
    return call


def flux2(config: Config, full: bool) -> Inputs:
    side, words = packed_side(config, full), text(full, 512, config["joint_attention_dim"])
    return packed_and_text(config, full, words) | {
        "guidance": torch.full((1,), 4.0),
        "txt_ids": grid(1, 1, 1, words.shape[1])[None],
        "img_ids": grid(1, side, side, 1)[None],
    }


def sd3(config: Config, full: bool) -> Inputs:
    words = text(full, 333, config["joint_attention_dim"])
    return image_and_text(config, full, words) | {
        "pooled_projections": torch.randn(1, config["pooled_projection_dim"])
    }


def dit(config: Config, full: bool) -> Inputs:
    return {
        "hidden_states": latents(config, latent_side(config, full)),
        "timestep": timestep(500),
        "class_labels": torch.full((1,), 3),
    }


def pixart(config: Config, full: bool) -> Inputs:
    width = config["caption_channels"] or config["cross_attention_dim"]
    return image_and_text(config, full, text(full, 120, width), 500) | {
        "encoder_attention_mask": text_mask(full, 120),
        "added_cond_kwargs": {
            "resolution": torch.full((1, 2), 8.0 * latent_side(config, full)),
            "aspect_ratio": torch.ones(1, 1),
        },
    }


def qwen_image(config: Config, full: bool) -> Inputs:
    side, words = packed_side(config, full), text(full, 128, config["joint_attention_dim"])
    return packed_and_text(config, full, words) | {"img_shapes": [[(1, side, side)]]}


def z_image(config: Config, full: bool) -> Inputs:
    """One image and one prompt, each in a list of its own: [channels, frames, height, width]."""
    side = latent_side(config, full)
    return {
        "x": [torch.randn(config["in_channels"], 1, side, side)],
        "t": timestep(0.5),
        "cap_feats": [text(full, 128, config["cap_feat_dim"])[0]],
    }


def sana(config: Config, full: bool) -> Inputs:
    words = text(full, 300, config["caption_channels"])
    return image_and_text(config, full, words) | {"encoder_attention_mask": text_mask(full, 300)}


def lumina2(config: Config, full: bool) -> Inputs:
    words = text(full, 256, config["cap_feat_dim"])
    mask = {"encoder_attention_mask": text_mask(full, 256)}
    return image_and_text(config, full, words, 0.5) | mask


def chroma(config: Config, full: bool) -> Inputs:
    """As FLUX, without a pooled prompt; the mask spans text and image and is of floats."""
    call = placed_and_text(config, full, 512)
    image = torch.ones(1, call["hidden_states"].shape[1])
    return call | {"attention_mask": torch.cat([text_mask(full, 512), image], dim=1)}


def bria(config: Config, full: bool) -> Inputs:
    return placed_and_text(config, full, 128) | {"timestep": timestep()}


def bria_fibo(config: Config, full: bool) -> Inputs:
    """The text encoder's states twice: its last two layers, and one layer for every block."""
    blocks = config["num_layers"] + config["num_single_layers"]
    layers = [text(full, 128, config["text_encoder_dim"]) for _ in range(blocks)]
    return bria(config, full) | {"text_encoder_layers": layers}


def bria_fibo2(config: Config, full: bool) -> Inputs:
    """One set of text states for the perceiver and one for each injecting block.

    A single prompt is not padded, and the pipeline passes no mask then.
    """
    bundles = 1 + len(config["injection_layer_ids"])
    words = torch.randn(1, bundles, *text(full, 512, config["cap_feat_dim"]).shape[1:])
    return image_and_text(config, full, words, 0.5)


def aura_flow(config: Config, full: bool) -> Inputs:
    return image_and_text(config, full, text(full, 256, config["joint_attention_dim"]), 0.5)


def hunyuan_dit(config: Config, full: bool) -> Inputs:
    side = latent_side(config, full)
    clip, t5 = config["text_len"], config["text_len_t5"]
    head = config["hidden_size"] // config["num_attention_heads"]
    return image_and_text(config, full, torch.randn(1, clip, config["cross_attention_dim"])) | {
        "text_embedding_mask": text_mask(True, clip),
        "encoder_hidden_states_t5": torch.randn(1, t5, config["cross_attention_dim_t5"]),
        "text_embedding_mask_t5": text_mask(True, t5),
        "image_meta_size": torch.tensor([[8.0 * side] * 4 + [0.0] * 2]),
        "style": torch.zeros(1, dtype=torch.long),
        "image_rotary_emb": rotary((side // config["patch_size"]) ** 2, head),
    }


def lumina_next(config: Config, full: bool) -> Inputs:
    side = latent_side(config, full)
    table = 384 if full else side
    angles = torch.rand(table, table, config["hidden_size"] // config["num_attention_heads"] // 2)
    return image_and_text(config, full, text(full, 256, config["cross_attention_dim"]), 0.5) | {
        "encoder_mask": text_mask(full, 256),
        "image_rotary_emb": torch.polar(torch.ones_like(angles), angles),
        "cross_attention_kwargs": {"base_sequence_length": (side // config["patch_size"]) ** 2},
    }


def cog_view(config: Config, full: bool) -> Inputs:
    size = torch.full((1, 2), 8.0 * latent_side(config, full))
    return image_and_text(config, full, text(full, 224, config["text_embed_dim"]), 500) | {
        "original_size": size,
        "target_size": size.clone(),
        "crop_coords": torch.zeros(1, 2),
    }


def ernie_image(config: Config, full: bool) -> Inputs:
    words = text(full, 128, config["text_in_dim"])
    return {
        "hidden_states": latents(config, packed_side(config, full)),
        "timestep": timestep(),
        "text_bth": words,
        "text_lens": torch.full((1,), words.shape[1]),
    }


def prior(config: Config, full: bool) -> Inputs:  # noqa: ARG001
    """The latent is an image embedding, and so is what conditions it."""
    width, tokens = config["embedding_dim"], config["num_embeddings"]
    return {
        "hidden_states": torch.randn(1, width),
        "timestep": torch.tensor(500),
        "proj_embedding": torch.randn(1, width),
        "encoder_hidden_states": torch.randn(1, tokens, width),
        "attention_mask": text_mask(True, tokens).bool(),
    }


def transformer_2d(config: Config, full: bool) -> Inputs:
    """A stack of a U-Net's attention blocks, called on a feature map."""
    return {
        "hidden_states": latents(config, 32 if full else 4),
        "encoder_hidden_states": text(full, 77, config["cross_attention_dim"]),
    }


def flux3(config: Config, full: bool) -> Inputs:
    """Text to image: without pictures to refer to."""
    side, words = packed_side(config, full), text(full, 512, config["joint_attention_dim"])
    return packed_and_text(config, full, words) | {
        "img_ids": grid(1, side, side, 1) * torch.tensor([1.0, 0.5, 0.5, 1.0]),
        "txt_ids": grid(1, 1, 1, words.shape[1]).float(),
    }


def diagonal_ids(config: Config, full: bool, tokens: int) -> Inputs:
    """As FLUX, without a pooled prompt; text lies on the diagonal of the image's plane."""
    call = placed_and_text(config, full, tokens)
    diagonal = torch.arange(len(call["txt_ids"])).float()
    return call | {"txt_ids": torch.stack([torch.zeros_like(diagonal), diagonal, diagonal], dim=1)}


def ovis_image(config: Config, full: bool) -> Inputs:
    return diagonal_ids(config, full, 256)


def long_cat_image(config: Config, full: bool) -> Inputs:
    """The image's grid starts where the longest prompt would end."""
    call = diagonal_ids(config, full, 512)
    return call | {"img_ids": call["img_ids"] + torch.tensor([1.0, 512.0, 512.0])}


def glm_image(config: Config, full: bool) -> Inputs:
    """A token of the autoregressive prior for every patch."""
    side = latent_side(config, full)
    tokens = (side // config["patch_size"]) ** 2
    return image_and_text(config, full, text(full, 64, config["text_embed_dim"])) | {
        "prior_token_id": torch.arange(tokens)[None] % config["prior_vq_quantizer_codebook_size"],
        "prior_token_drop": torch.zeros(1, tokens, dtype=torch.bool),
        "target_size": torch.full((1, 2), 8.0 * side),
        "crop_coords": torch.zeros(1, 2),
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


def hunyuan_image(config: Config, full: bool) -> Inputs:
    call = image_and_text(config, full, text(full, 1000, config["text_embed_dim"])) | {
        "hidden_states": latents(config, packed_side(config, full)),
        "encoder_attention_mask": text_mask(full, 1000),
    }
    if config["text_embed_2_dim"]:  # what is to be written in the picture
        call["encoder_hidden_states_2"] = text(full, 128, config["text_embed_2_dim"])
        call["encoder_attention_mask_2"] = text_mask(full, 128)
    if config["guidance_embeds"]:
        call["guidance"] = torch.full((1,), 3500.0)
    return call


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
    side, mask = packed_side(config, full), text_mask(full, 512).bool()
    words = mask.shape[1]
    states = torch.randn(1, words, config["num_text_layers"], config["text_hidden_dim"])
    return packed_and_text(config, full, states) | {
        "position_ids": torch.cat([torch.zeros(words, 3), grid(1, side, side).float()]),
        "encoder_attention_mask": mask,
    }


def nucleus(config: Config, full: bool) -> Inputs:
    call = qwen_image(config, full)
    return call | {"img_shapes": call["img_shapes"][0]}


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
    mask = {"attention_mask": text_mask(full, 256).bool()}
    return image_and_text(config, full, words, 0.5) | mask


def qwen_image21(config: Config, full: bool) -> Inputs:
    """``img_mask`` has a place for every word and for every four tokens of the image."""
    side, words = packed_side(config, full), text(full, 128, config["context_in_dim"])
    length = words.shape[1]
    return packed_and_text(config, full, words) | {
        "img_shapes": [[(1, side, side)]],
        "img_mask": torch.arange(length + side * side // 4)[None] >= length,
    }


def uvit(config: Config, full: bool) -> Inputs:
    """The latent is a square of indices into a codebook; all are masked at first."""
    side = config["sample_size"] if full else 8
    conditions = config["micro_cond_embed_dim"] // config["micro_cond_encode_dim"]
    return {
        "input_ids": torch.full((1, side, side), config["vocab_size"] - 1),
        "micro_conds": torch.full((1, conditions), 512.0),
        "pooled_text_emb": torch.randn(1, config["cond_embed_dim"]),
        "encoder_hidden_states": text(full, 77, config["encoder_hidden_size"]),
    }


def unet_1d(config: Config, full: bool) -> Inputs:
    length = config["sample_size"] if full else 64
    return {
        "sample": torch.randn(1, config["in_channels"], length),
        "timestep": torch.tensor(500),
    }


def unet_2d(config: Config, full: bool) -> Inputs:
    return {
        "sample": latents(config, latent_side(config, full, native=64, tiny=16)),
        "timestep": torch.tensor(500),
    }


def unet_condition(config: Config, full: bool) -> Inputs:
    words = text(full, 77, config["cross_attention_dim"])
    return unet_2d(config, full) | {"encoder_hidden_states": words}


def dream_lite(config: Config, full: bool) -> Inputs:
    """The latent and the picture to edit, side by side."""
    side = latent_side(config, full)
    return {
        "sample": torch.randn(1, config["in_channels"], side, 2 * side),
        "timestep": timestep(),
        "encoder_hidden_states": text(full, 256, config["cross_attention_dim"]),
        "encoder_attention_mask": text_mask(full, 256),
        "added_cond_kwargs": {"time_ids": torch.full((1, 2), 8.0 * side)},
    }


def kandinsky3(config: Config, full: bool) -> Inputs:
    return {
        "sample": latents(config, latent_side(config, full, tiny=16)),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": text(full, 128, config["encoder_hid_dim"]),
        "encoder_attention_mask": text_mask(full, 128),
    }


def unet_clip(config: Config, full: bool, size: tuple[int, int]) -> Inputs:
    """The call of a U-Net over 16 frames of ``size``."""
    clip = (16, *size) if full else (2, 16, 16)
    return {
        "sample": torch.randn(1, config["in_channels"], *clip),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": text(full, 77, config["cross_attention_dim"]),
    }


def unet_3d(config: Config, full: bool) -> Inputs:
    return unet_clip(config, full, (32, 32))


def i2vgen(config: Config, full: bool) -> Inputs:
    call = unet_clip(config, full, (88, 160))
    return call | {
        "fps": torch.full((1,), 16),
        "image_latents": torch.randn_like(call["sample"]),
        "image_embeddings": torch.randn(1, config["cross_attention_dim"]),
    }


def unet_motion(config: Config, full: bool) -> Inputs:
    """The prompt once for every frame."""
    call = unet_clip(config, full, (64, 64))
    words, frames = call["encoder_hidden_states"], call["sample"].shape[2]
    return call | {"encoder_hidden_states": words.repeat(frames, 1, 1)}


def unet_video(config: Config, full: bool) -> Inputs:
    """Stable Video Diffusion: the noise and the image's latent, frame by frame."""
    clip = (config["num_frames"], config["in_channels"], 72, 128) if full else (2, 8, 16, 16)
    return {
        "sample": torch.randn(1, *clip),
        "timestep": torch.tensor(1.5),
        "encoder_hidden_states": torch.randn(1, 1, config["cross_attention_dim"]),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]),
    }


def stable_cascade(config: Config, full: bool) -> Inputs:
    """The prior's call; text and image tokens only where the model maps them."""
    call = {
        "sample": latents(config, 24 if full else 8),
        "timestep_ratio": timestep(0.5),
        "clip_text_pooled": torch.randn(1, 1, config["clip_text_pooled_in_channels"]),
    }
    if config["clip_text_in_channels"] and config["clip_image_in_channels"]:
        call["clip_text"] = text(full, 77, config["clip_text_in_channels"])
        call["clip_img"] = torch.randn(1, 1, config["clip_image_in_channels"])
    return call


FLUX_TINY: Config = {
    "in_channels": 16,
    "num_layers": 4,
    "num_single_layers": 4,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": (4, 6, 6),
}

COGVIEW_TINY: Config = {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 4,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "text_embed_dim": 24,
    "time_embed_dim": 16,
    "condition_dim": 8,
}

UNET_TINY: Config = {
    "block_out_channels": (8, 16, 32, 32),
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
}

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "FluxTransformer2DModel",
        {
            **FLUX_TINY,
            "pooled_projection_dim": 12,
        },
        flux,
    ),
    Recipe(
        "Flux2Transformer2DModel",
        {
            **FLUX_TINY,
            "axes_dims_rope": (4, 4, 4, 4),
        },
        flux2,
    ),
    Recipe(
        "SD3Transformer2DModel",
        {
            "sample_size": 8,
            "in_channels": 4,
            "num_layers": 4,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "caption_projection_dim": 32,
            "pooled_projection_dim": 12,
            "out_channels": 4,
            "pos_embed_max_size": 6,
        },
        sd3,
    ),
    Recipe(
        "DiTTransformer2DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 4,
            "sample_size": 8,
            "num_embeds_ada_norm": 10,
        },
        dit,
    ),
    Recipe(
        "PixArtTransformer2DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 4,
            "cross_attention_dim": 24,
            "sample_size": 8,
            "use_additional_conditions": True,
            "caption_channels": 20,
        },
        pixart,
        # The published checkpoints project T5's states; the class's default takes them as wide
        # as the model.
        default={"caption_channels": 4096},
    ),
    Recipe(
        "QwenImageTransformer2DModel",
        {
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 4,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "axes_dims_rope": (4, 6, 6),
        },
        qwen_image,
    ),
    Recipe(
        "ZImageTransformer2DModel",
        {
            "in_channels": 4,
            "dim": 32,
            "n_layers": 4,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 24,
            "axes_dims": [4, 6, 6],
            "axes_lens": [64, 16, 16],
        },
        z_image,
    ),
    Recipe(
        "SanaTransformer2DModel",
        {
            "in_channels": 8,
            "out_channels": 8,
            "num_attention_heads": 4,
            "attention_head_dim": 8,
            "num_layers": 4,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 16,
            "cross_attention_dim": 32,
            "caption_channels": 24,
            "sample_size": 8,
        },
        sana,
    ),
    Recipe(
        "Lumina2Transformer2DModel",
        {
            "sample_size": 8,
            "in_channels": 4,
            "hidden_size": 48,
            "num_layers": 4,
            "num_attention_heads": 6,
            "num_kv_heads": 2,
            "multiple_of": 16,
            "axes_dim_rope": (2, 2, 4),
            "axes_lens": (30, 32, 32),
            "cap_feat_dim": 20,
        },
        lumina2,
    ),
    Recipe(
        "UNet2DConditionModel",
        {
            **UNET_TINY,
            "attention_head_dim": 2,
        },
        unet_condition,
    ),
    Recipe(
        "ChromaTransformer2DModel",
        {
            **FLUX_TINY,
            "approximator_num_channels": 16,
            "approximator_hidden_dim": 20,
            "approximator_layers": 4,
        },
        chroma,
    ),
    Recipe(
        "BriaTransformer2DModel",
        {
            **FLUX_TINY,
        },
        bria,
    ),
    Recipe(
        "BriaFiboTransformer2DModel",
        {
            **FLUX_TINY,
            "text_encoder_dim": 12,
        },
        bria_fibo,
    ),
    Recipe(
        "BriaFibo2Transformer2DModel",
        {
            "in_channels": 4,
            "dim": 32,
            "n_layers": 4,
            "n_heads": 2,
            "cap_feat_dim": 24,
            "injection_layer_ids": (1, 3),
            "min_num_gist_tokens": 4,
            "max_num_gist_tokens": 8,
            "gist_step": 2,
            "gist_min_text_len": 4,
            "gist_max_text_len": 16,
            "axes_dims": (4, 6, 6),
            "axes_lens": (32, 16, 16),
        },
        bria_fibo2,
    ),
    Recipe(
        "AuraFlowTransformer2DModel",
        {
            "sample_size": 8,
            "num_single_dit_layers": 4,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "caption_projection_dim": 32,
            "pos_embed_max_size": 16,
        },
        aura_flow,
    ),
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
        "LuminaNextDiT2DModel",
        {
            "sample_size": 8,
            "hidden_size": 32,
            "num_layers": 4,
            "num_attention_heads": 4,
            "num_kv_heads": 2,
            "multiple_of": 16,
            "cross_attention_dim": 24,
        },
        lumina_next,
        # The class takes None for "as many as heads" and fails on it.
        default={"num_kv_heads": 8},
    ),
    Recipe(
        "CogView3PlusTransformer2DModel",
        {
            **COGVIEW_TINY,
            "pos_embed_max_size": 8,
            "sample_size": 8,
        },
        cog_view,
    ),
    Recipe(
        "CogView4Transformer2DModel",
        {
            **COGVIEW_TINY,
            "pos_embed_max_size": 8,
            "sample_size": 8,
            "rope_axes_dim": (8, 8),
        },
        cog_view,
    ),
    Recipe(
        "ErnieImageTransformer2DModel",
        {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_layers": 4,
            "ffn_hidden_size": 48,
            "in_channels": 16,
            "out_channels": 16,
            "text_in_dim": 24,
            "rope_axes_dim": (4, 6, 6),
        },
        ernie_image,
    ),
    Recipe(
        "PriorTransformer",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 4,
            "embedding_dim": 12,
            "num_embeddings": 7,
        },
        prior,
    ),
    Recipe(
        "Transformer2DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 32,
            "num_layers": 4,
            "norm_num_groups": 4,
            "cross_attention_dim": 24,
        },
        transformer_2d,
        # The deepest stack of SDXL's U-Net.
        default={
            "num_attention_heads": 20,
            "attention_head_dim": 64,
            "in_channels": 1280,
            "num_layers": 10,
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
        },
    ),
    Recipe(
        "DreamLiteTransformer2DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 32,
            "num_layers": 4,
            "norm_num_groups": 4,
            "cross_attention_dim": 24,
            "qk_norm": "rms_norm",
        },
        transformer_2d,
        default={
            "num_attention_heads": 20,
            "attention_head_dim": 64,
            "in_channels": 1280,
            "num_layers": 4,
            "cross_attention_dim": 2048,
            "qk_norm": "rms_norm",
        },
    ),
    Recipe(
        "DreamLiteUNetModel",
        {
            "block_out_channels": (8, 16, 32),
            "norm_num_groups": 4,
            "cross_attention_dim": 12,
            "attention_head_dim": 2,
        },
        dream_lite,
    ),
    Recipe(
        "Flux3Transformer2DModel",
        {
            **FLUX_TINY,
            "cond_in_channels": 16,
            "axes_dims_rope": (4, 4, 4, 4),
        },
        flux3,
    ),
    Recipe(
        "OvisImageTransformer2DModel",
        {
            **FLUX_TINY,
            "out_channels": 16,
        },
        ovis_image,
    ),
    Recipe(
        "LongCatImageTransformer2DModel",
        {
            **FLUX_TINY,
            "pooled_projection_dim": 24,
        },
        long_cat_image,
    ),
    Recipe(
        "GlmImageTransformer2DModel",
        {
            **COGVIEW_TINY,
            "prior_vq_quantizer_codebook_size": 20,
        },
        glm_image,
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
        # The published model; the class's own defaults leave out what it cannot do without.
        default={
            "patch_size": 2,
            "in_channels": 16,
            "caption_channels": [4096, 4096],
            "axes_dims_rope": (64, 32, 32),
            "llama_layers": [*range(32), *[31] * 16],
        },
    ),
    Recipe(
        "HunyuanImageTransformer2DModel",
        {
            "in_channels": 16,
            "out_channels": 16,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 4,
            "num_single_layers": 4,
            "text_embed_dim": 24,
            "rope_axes_dim": (8, 8),
        },
        hunyuan_image,
    ),
    Recipe(
        "Ideogram4Transformer2DModel",
        {
            "in_channels": 16,
            "num_layers": 4,
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
            "num_layers": 4,
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
        "NucleusMoEImageTransformer2DModel",
        {
            "in_channels": 16,
            "out_channels": 4,
            # The first three blocks and the last have no experts.
            "num_layers": 8,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "axes_dims_rope": (4, 6, 6),
            # The width of the blocks without experts is rounded down to a multiple of 128.
            "mlp_ratio": 6.0,
            "num_experts": 4,
            "moe_intermediate_dim": 16,
            "capacity_factors": 2.0,
        },
        nucleus,
    ),
    Recipe(
        "OmniGenTransformer2DModel",
        {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 48,
            "num_layers": 4,
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
            "depth": 4,
            "axes_dim": [8, 8],
        },
        prx,
    ),
    Recipe(
        "QwenImage21Transformer2DModel",
        {
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 4,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "context_in_dim": 24,
            "axes_dims_rope": (4, 6, 6),
        },
        qwen_image21,
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
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "sample_size": 8,
        },
        uvit,
        options={},
    ),
    Recipe(
        "UNet1DModel",
        {
            "sample_size": 64,
            "extra_in_channels": 32,
            "block_out_channels": (16, 32, 32),
        },
        unet_1d,
        # Room for the features of the time, which the first block appends to the sample.
        default={"extra_in_channels": 64},
    ),
    Recipe(
        "UNet2DModel",
        {"block_out_channels": (8, 16, 16, 32), "norm_num_groups": 4},
        unet_2d,
    ),
    Recipe(
        "UNet3DConditionModel",
        {
            **UNET_TINY,
            "attention_head_dim": 4,
        },
        unet_3d,
    ),
    Recipe(
        "I2VGenXLUNet",
        {
            **UNET_TINY,
            "attention_head_dim": 4,
        },
        i2vgen,
    ),
    Recipe(
        "Kandinsky3UNet",
        {
            "time_embedding_dim": 16,
            "groups": 4,
            "attention_head_dim": 4,
            "block_out_channels": (8, 16, 32, 32),
            "cross_attention_dim": 12,
            "encoder_hid_dim": 20,
        },
        kandinsky3,
    ),
    Recipe(
        "UNetMotionModel",
        {
            **UNET_TINY,
            "num_attention_heads": 2,
            "motion_num_attention_heads": 2,
        },
        unet_motion,
    ),
    Recipe(
        "UNetSpatioTemporalConditionModel",
        {
            # Its norms have 32 groups, whatever the width.
            "block_out_channels": (32, 32, 32, 32),
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 24,
            "cross_attention_dim": 12,
            "num_attention_heads": (2, 2, 2, 2),
        },
        unet_video,
    ),
    Recipe(
        "StableCascadeUNet",
        {
            "in_channels": 4,
            "out_channels": 4,
            "timestep_ratio_embedding_dim": 8,
            "conditioning_dim": 24,
            "block_out_channels": (16, 32),
            "num_attention_heads": (2, 4),
            "down_num_layers_per_block": (2, 4),
            "up_num_layers_per_block": (4, 2),
            "clip_text_pooled_in_channels": 20,
        },
        stable_cascade,
    ),
)
