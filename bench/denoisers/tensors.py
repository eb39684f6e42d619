"""Tensors that many pipelines pass to their denoisers."""

import torch
from torch import Tensor


def timestep(value: float = 500.0) -> Tensor:
    """Return a timestep for a batch of one, of integers if ``value`` is an integer."""
    return torch.full((1,), value)


def text(full: bool, tokens: int, width: int, few: int = 5) -> Tensor:
    """Return text embeddings: ``tokens`` at full size, else ``few``."""
    return torch.randn(1, tokens if full else few, width)


def text_mask(full: bool, tokens: int, few: int = 5) -> Tensor:
    """Return the mask for ``text``, whose last fifth is padding."""
    length = tokens if full else few
    return (torch.arange(length) < length - length // 5).long()[None]


def prompt_mask(full: bool, tokens: int) -> Tensor:
    """Return the mask of a prompt that fills all but the last two places."""
    length = tokens if full else 5
    return (torch.arange(length) < length - 2).long()[None]


def rotary(tokens: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of a pipeline's rotary embedding: [tokens, width]."""
    angles = torch.rand(tokens, width)
    return angles.cos(), angles.sin()


def grid(*sizes: int) -> Tensor:
    """Return the coordinates of all points of a grid, in row-major order: [points, axes]."""
    axes = torch.meshgrid(*(torch.arange(size) for size in sizes), indexing="ij")
    return torch.stack(axes, dim=-1).flatten(0, -2)
