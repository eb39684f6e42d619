"""Full-size models of diffusers in bfloat16, with random weights that are made on the device.

Only the part that times whole steps imports this module, which imports diffusers.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.denoisers import RECIPES, classes
from bench.frontier import MODELS
from bench.gpu.setup import FLUX, SD_1_5, SDXL, WAN, Setup
from fxcache.integrations.example_inputs import example_inputs

Inputs = dict[str, Any]
UNET = "UNet2DConditionModel"
FLUX_CLASS, WAN_CLASS = "FluxTransformer2DModel", "WanTransformer3DModel"
TWO_LEVELS = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
WAN_1_3B = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}


@dataclass(frozen=True)
class Denoiser:
    """A model.

    Attributes:
        kind: The name of the class.
        config: The configuration of the full-size model.
        inputs: Makes the inputs of one call, from the model and whether it has its full size.
        tiny: The changes of a dry run to the small model in ``bench.denoisers``.
        memory_format: The memory format.
    """

    kind: str
    config: Mapping[str, Any]
    inputs: Callable[[Any, bool], Inputs]
    tiny: Mapping[str, Any]
    memory_format: torch.memory_format = torch.contiguous_format


def unet(name: str) -> Denoiser:
    return Denoiser(
        UNET,
        MODELS[name],
        lambda model, _: example_inputs(model, batch=2),  # both halves of the guidance
        TWO_LEVELS,
        torch.channels_last,
    )


def recipe_inputs(kind: str) -> Callable[[Any, bool], Inputs]:
    return lambda model, full: RECIPES[kind].inputs(model.config, full)


DENOISERS: Mapping[str, Denoiser] = {
    SD_1_5: unet(SD_1_5),
    FLUX: Denoiser(FLUX_CLASS, RECIPES[FLUX_CLASS].default, recipe_inputs(FLUX_CLASS), {}),
    SDXL: unet(SDXL),
    WAN: Denoiser(WAN_CLASS, WAN_1_3B, recipe_inputs(WAN_CLASS), {}),
}


def build(setup: Setup, denoiser: Denoiser) -> tuple[nn.Module, Inputs]:
    """Return the model on the device, and the arguments of one call."""
    tiny = {**RECIPES[denoiser.kind].tiny, **denoiser.tiny}
    config = {True: denoiser.config, False: tiny}[setup.full]
    with torch.device(setup.device), default_dtype(torch.bfloat16):
        torch.manual_seed(0)
        model: Any = classes()[denoiser.kind](**config)
        model.eval().requires_grad_(False).to(memory_format=denoiser.memory_format)
        return model, random_like(denoiser.inputs(model, setup.full), setup.device)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def random_like(value: Any, device: str) -> Any:
    """Return tensors like these on the device: random floats in bfloat16, and integers of 1."""
    if isinstance(value, dict):
        return {name: random_like(item, device) for name, item in value.items()}
    if not isinstance(value, Tensor):
        return value
    if value.is_floating_point():
        return torch.randn(value.shape, dtype=torch.bfloat16, device=device)
    return torch.ones(value.shape, dtype=value.dtype, device=device)
