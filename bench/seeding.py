"""Small models with seeded random weights."""

from collections.abc import Callable

import torch
from torch import nn


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a model with seeded weights, in eval mode. All its blocks have an effect."""
    torch.manual_seed(0)
    model = build().eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        elif not weight.any():
            nn.init.normal_(weight, std=0.02)
    return model
