"""What pipelines of many kinds pass to their denoisers."""

import torch
from torch import Tensor


def timestep(value: float = 500.0) -> Tensor:
    """One timestep for a batch of one; of integers where ``value`` is."""
    return torch.full((1,), value)


def text(full: bool, tokens: int, width: int, few: int = 5) -> Tensor:
    """Text embeddings: ``tokens`` of them at full size, else ``few``."""
    return torch.randn(1, tokens if full else few, width)


def text_mask(full: bool, tokens: int, few: int = 5) -> Tensor:
    """The mask that goes with ``text``: the last fifth is padding."""
    length = tokens if full else few
    return (torch.arange(length) < length - length // 5).long()[None]


def prompt_mask(full: bool, tokens: int) -> Tensor:
    """What a tokenizer returns for a prompt that fills all but the last two places."""
    length = tokens if full else 5
    return (torch.arange(length) < length - 2).long()[None]


def rotary(tokens: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of a rotary embedding that the pipeline computes: [tokens, width]."""
    angles = torch.rand(tokens, width)
    return angles.cos(), angles.sin()


def grid(*sizes: int) -> Tensor:
    """The coordinates of every point of a grid, in row-major order: [points, axes]."""
    axes = torch.meshgrid(*(torch.arange(size) for size in sizes), indexing="ij")
    return torch.stack(axes, dim=-1).flatten(0, -2)
