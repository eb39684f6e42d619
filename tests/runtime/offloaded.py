"""A device that stands for the host in tests of offloading."""

import torch
from torch import Tensor, nn

import fxcache

ELSEWHERE = torch.device("meta")
ALWAYS = fxcache.Uniform(1)
TEACACHE = fxcache.TeaCache(1.0, coefficients=(1.0, 0.0))


class Host:
    """The stand-in for the CPU: it keeps the data of weights, and leaves NaN in their place."""

    def __init__(self) -> None:
        self.kept: dict[int, Tensor] = {}
        self.fetches = 0

    def move(self, weight: Tensor, device: torch.device) -> None:
        if device != ELSEWHERE:
            weight.data = self.kept.pop(id(weight))
        elif id(weight) not in self.kept:
            self.kept[id(weight)] = weight.data
            weight.data = torch.full_like(weight, torch.nan)

    def copy_to(self, weight: Tensor, device: torch.device) -> Tensor:
        assert device == torch.device("cpu")
        self.fetches += 1
        return self.kept[id(weight)].detach()


def away(model: nn.Module) -> set[str]:
    """Return the names of the offloaded weights."""
    return {name for name, weight in model.named_parameters() if weight.isnan().all()}
