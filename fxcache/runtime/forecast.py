"""The weights of cached derivatives, as the variants read them."""

from functools import lru_cache

import torch
from torch import Tensor

from fxcache.schedule import Policy

KEPT = 256


class Weights:
    """Weights by the ages of what is cached; each is copied to the device once."""

    def __init__(self, policy: Policy):
        self._policy = policy
        self._tensor = lru_cache(KEPT)(self._make)

    def of(self, ages: tuple[tuple[int, int], ...], like: Tensor) -> Tensor:
        """``[points, order]`` for points of such ages and distances, on the device of ``like``.

        In single precision, or that of ``like`` if it is more.
        """
        return self._tensor(ages, like.device, torch.promote_types(like.dtype, torch.float32))

    def _make(
        self, ages: tuple[tuple[int, int], ...], device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        rows = [self._policy.forecast(age, distance) for age, distance in ages]
        with torch.inference_mode(False):
            return torch.tensor(rows, dtype=dtype, device=device)
