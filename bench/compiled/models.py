"""The two models, with random weights: a small Stable Diffusion U-Net, and a small FLUX."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from bench.denoisers.tensors import grid

Inputs = dict[str, Any]
IMAGE_TOKENS, TEXT_TOKENS = 196, 64  # of the transformer


class Model(NamedTuple):
    """A model of the measurement: how it is made, and the inputs of one call but the timestep."""

    build: Callable[[], nn.Module]
    inputs: Callable[[nn.Module], Inputs]
    timestep: tuple[int, ...]  # its shape
    largest: float  # the first timestep


def unet(**changes: Any) -> nn.Module:
    """Return a U-Net with three levels, for latents ``[1, 4, 24, 24]``."""
    config: dict[str, Any] = {
        "sample_size": 24,
        "block_out_channels": (128, 256, 256),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 4,  # diffusers reads this as the number of heads
        "cross_attention_dim": 768,
    }
    return seeded(lambda: UNet2DConditionModel(**{**config, **changes}))


def unet_inputs(model: nn.Module) -> Inputs:
    config: Any = model.config
    size = config.sample_size
    return {
        "sample": torch.randn(1, config.in_channels, size, size),
        "encoder_hidden_states": torch.randn(1, 77, config.cross_attention_dim),
    }


def flux(**changes: Any) -> nn.Module:
    """Return a FLUX with 4 double and 8 single blocks of width 512."""
    config: dict[str, Any] = {
        "num_layers": 4,
        "num_single_layers": 8,
        "num_attention_heads": 8,
        "attention_head_dim": 64,
        "joint_attention_dim": 768,
        "pooled_projection_dim": 768,
        "axes_dims_rope": (16, 24, 24),
        "guidance_embeds": True,
    }
    return seeded(lambda: FluxTransformer2DModel(**{**config, **changes}))


def flux_inputs(model: nn.Module) -> Inputs:
    config: Any = model.config
    side = int(IMAGE_TOKENS**0.5)
    return {
        "hidden_states": torch.randn(1, IMAGE_TOKENS, config.in_channels),
        "encoder_hidden_states": torch.randn(1, TEXT_TOKENS, config.joint_attention_dim),
        "pooled_projections": torch.randn(1, config.pooled_projection_dim),
        "img_ids": grid(1, side, side),
        "txt_ids": torch.zeros(TEXT_TOKENS, 3),
        "guidance": torch.full((1,), 3.5),
    }


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().eval().requires_grad_(False)


MODELS: Mapping[str, Model] = {
    "U-Net": Model(unet, unet_inputs, (), 999.0),
    "FLUX": Model(flux, flux_inputs, (1,), 0.999),
}


def twin(model: nn.Module) -> nn.Module:
    """Return a copy of the model that shares its weights, so that both read the same memory."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def timesteps(model: Model, steps: int) -> list[Tensor]:
    """Return decreasing timesteps: elements of one tensor, in the shape that the model takes."""
    values = torch.linspace(model.largest, model.largest / steps, steps)
    return [value.expand(model.timestep) for value in values]
