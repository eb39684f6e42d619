"""CogVideoX, and ConsisID, which is built on it."""

import torch

from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import rotary, text, timestep

COGVIDEOX_TINY: Config = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 16,
    "text_embed_dim": 16,
    "num_layers": 2,
    "sample_width": 4,
    "sample_height": 4,
    "sample_frames": 5,
    "max_text_seq_length": 5,
}

FACE: Config = {
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
    "is_train_face": True,
}


def cogvideox(config: Config, full: bool) -> Inputs:
    """CogVideoX 2B: frames before channels, no rotary embedding; its text length is fixed."""
    frames = (config["sample_frames"] - 1) // config["temporal_compression_ratio"] + 1
    size = (frames, config["in_channels"], config["sample_height"], config["sample_width"])
    few = config["max_text_seq_length"]
    return {
        "hidden_states": torch.randn(1, *size),
        "encoder_hidden_states": text(full, 226, config["text_embed_dim"], few),
        "timestep": timestep(500),
    }


def consisid(config: Config, full: bool) -> Inputs:
    """ConsisID: CogVideoX with rotary embedding, a face and five levels of its features."""
    inputs = cogvideox(config, full)
    _, frames, _, height, width = inputs["hidden_states"].shape
    tokens = frames * (height // config["patch_size"]) * (width // config["patch_size"])
    features = (1, 577 if full else 5, config["LFE_vit_dim"])
    return inputs | {
        "image_rotary_emb": rotary(tokens, config["attention_head_dim"]),
        "id_vit_hidden": [torch.randn(features) for _ in range(config["LFE_num_scale"])],
        "id_cond": torch.randn(1, config["LFE_id_dim"]),
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe("CogVideoXTransformer3DModel", COGVIDEOX_TINY, cogvideox),
    Recipe(
        "ConsisIDTransformer3DModel",
        {
            **COGVIDEOX_TINY,
            **FACE,
            "num_attention_heads": 3,
            "cross_attn_dim_head": 8,
            "cross_attn_num_heads": 2,
            "LFE_id_dim": 16,
            "LFE_vit_dim": 16,
            "LFE_depth": 5,
            "LFE_dim_head": 8,
            "LFE_num_heads": 2,
            "LFE_num_id_token": 2,
            "LFE_num_querie": 4,
            "LFE_output_dim": 32,
        },
        consisid,
        {**FACE, "in_channels": 32, "num_attention_heads": 48, "num_layers": 42},
    ),
)
