"""Classes, in a file that a model's file imports, which keep tensors in their own attributes."""

from typing import Any, ClassVar

import torch
from torch import Tensor


class Angles:
    """A table in a class, filled at the first use."""

    made: ClassVar[dict[int, Tensor]] = {}

    @classmethod
    def of(cls, size: int) -> Tensor:
        """Return angles, made once for each size."""
        if size not in cls.made:
            cls.made[size] = torch.linspace(0.0, 1.0, size)
        return cls.made[size]


class Last:
    """A tensor in a class, made at the first use."""

    made: Any = None

    @classmethod
    def of(cls, size: int) -> Tensor:
        """Return one table for all sizes."""
        if cls.made is None:
            cls.made = torch.linspace(0.0, 1.0, 64)
        found: Tensor = cls.made[:size]
        return found
