"""The reference in plain PyTorch. It is the oracle of the tests, and runs on the CPU."""

import torch
from torch import Tensor
from torch.nn import functional

PIECE = 512  # the number of positions of a piece


def concat_group_norm_silu(
    cached: Tensor, fresh: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> list[Tensor]:
    """Return ``silu(group_norm(cat([cached, fresh], 1)))`` and the concatenation."""
    joined = torch.cat([cached, fresh], dim=1)
    return [functional.silu(functional.group_norm(joined, groups, weight, bias, eps)), joined]


def group_moments(x: Tensor, groups: int, channels: int, first: int) -> Tensor:
    """Return the mean and squared deviations of each piece of each group's channels in ``x``."""
    size = channels // groups
    found = []
    for group in range(groups):
        begin, end = (max(0, edge - first) for edge in (group * size, (group + 1) * size))
        pieces = [
            torch.stack(
                [part.mean((1, 2)), part.var((1, 2), correction=0) * part.shape[1] * part.shape[2]],
                -1,
            )
            if part.shape[1]
            else x.new_zeros((len(x), 2), dtype=torch.float32)
            for part in x.flatten(2)[:, begin:end].float().split(PIECE, dim=2)
        ]
        found.append(torch.stack(pieces, dim=1))
    return torch.stack(found, dim=1)
