"""The weights of cached derivatives, as the variants read them."""

from functools import lru_cache

import torch
from torch import Tensor

from fxcache.schedule import Policy, Step

KEPT = 256


class Weights:
    """Weights of cached derivatives; equal ones are copied to a device once."""

    def __init__(self, policy: Policy):
        self._policy = policy
        self._tensor = lru_cache(KEPT)(made)

    def of(self, ages: tuple[tuple[int, int], ...], step: Step, like: Tensor) -> Tensor:
        """``[points, order]`` for points of such ages and distances, on the device of ``like``.

        In single precision, or that of ``like`` if it is more.
        """
        rows = tuple(self._policy.forecast(age, distance, step) for age, distance in ages)
        return self._tensor(rows, like.device, torch.promote_types(like.dtype, torch.float32))


def made(rows: tuple[tuple[float, ...], ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(rows, dtype=dtype, device=device)
