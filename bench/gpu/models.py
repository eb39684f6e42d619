"""Denoisers in plain PyTorch with the structure of a U-Net, of FLUX and of DiT.

Each is called as ``model(sample, timestep, text)`` and returns a tensor like ``sample``.
``timestep`` is one number, ``[]``, or one for each row, ``[B]``. ``text`` is ``[B, words, width]``.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from bench.gpu.layers import LATENT_CHANNELS, Size
from bench.gpu.transformers import DiT, Flux
from bench.gpu.unet import UNet

MODELS: Mapping[str, Callable[[Size], nn.Module]] = {"U-Net": UNet, "FLUX": Flux, "DiT": DiT}


def build(name: str, size: Size, device: str, dtype: torch.dtype) -> nn.Module:
    """Return a model with seeded random weights, in eval mode.

    The weights make layers keep the scale of their inputs. So blocks change their stream, and reuse
    differs from recomputation.
    """
    torch.manual_seed(0)
    model = MODELS[name](size).eval().requires_grad_(False)
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return model.to(device, dtype)


def sample_shape(name: str, size: Size, batch: int) -> tuple[int, ...]:
    """Return the shape of the latent of a model."""
    tokens = (batch, size.side**2, LATENT_CHANNELS)
    picture = (batch, LATENT_CHANNELS, size.side, size.side)
    return {"U-Net": picture}.get(name, tokens)
