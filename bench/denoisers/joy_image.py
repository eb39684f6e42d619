"""JoyImage's transformers, which edit images."""

import torch

from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import text, timestep

JOY_TINY: Config = {
    "in_channels": 4,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "text_dim": 16,
    "num_layers": 2,
    "rope_dim_list": [4, 6, 6],
}


def joy_image(config: Config, full: bool) -> Inputs:
    """JoyImage edit: the reference and the new image, 1024x1024, along the second axis."""
    side = 128 if full else 4
    return {
        "hidden_states": torch.randn(1, 2, config["in_channels"], 1, side, side),
        "timestep": timestep(),
        "encoder_hidden_states": text(full, 1024, config["text_dim"]),
    }


def joy_image_plus(config: Config, full: bool) -> Inputs:
    """JoyImage edit plus: the patches of the new image and of two references, in one sequence."""
    side = 64 if full else 2
    patches = (3 * side * side, config["in_channels"], *config["patch_size"])
    words = text(full, 2048, config["text_dim"])
    return {
        "hidden_states": torch.randn(1, *patches),
        "timestep": timestep(),
        "encoder_hidden_states": words,
        "encoder_hidden_states_mask": torch.ones(words.shape[:2], dtype=torch.int64),
        "shape_list": [[(1, side, side)] * 3],
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe("JoyImageEditTransformer3DModel", JOY_TINY, joy_image),
    Recipe("JoyImageEditPlusTransformer3DModel", JOY_TINY, joy_image_plus),
)
