"""What tells whether a plan was made for a model: its class, its weights' shapes and sizes."""

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from fxcache.checks import is_number

PROBES = 8
TOLERANCE = 0.01  # between a model and its copy in half precision, or with a light adapter


@dataclass(frozen=True)
class Fingerprint:
    """What tells whether a plan was made for a model.

    Attributes:
        model: The name of the model's class.
        parameters: How many numbers its weights and buffers hold.
        shapes: A digest of their names and shapes.
        magnitudes: The mean absolute value of the largest weights, by name.
    """

    model: str
    parameters: int
    shapes: str
    magnitudes: dict[str, float]

    def __post_init__(self) -> None:
        if not isinstance(self.magnitudes, dict) or not all(
            map(is_number, self.magnitudes.values())
        ):
            raise TypeError(f"magnitudes={self.magnitudes!r}")

    def differences(self, other: "Fingerprint") -> list[str]:
        """List how another model differs.

        Args:
            other: The other model's fingerprint.

        Returns:
            One phrase for each difference. The list is empty if a plan serves both models.
        """
        if self.model != other.model:
            return [f"the plan is for {self.model}, this is {other.model}"]
        if self.shapes != other.shapes:
            mine, its = f"{self.parameters:,}", f"{other.parameters:,}"
            count = f"{mine} parameters, this has {its}" if mine != its else "other weights' shapes"
            return [f"the plan is for a {self.model} of {count}"]
        return [
            f"{name} is on average {then:.4g} in the plan, {now:.4g} here"
            for name, then in self.magnitudes.items()
            if not math.isclose(
                then, now := other.magnitudes.get(name, math.nan), rel_tol=TOLERANCE, abs_tol=1e-12
            )
        ]

    def to_dict(self) -> dict[str, Any]:
        """Describe the fingerprint as JSON can hold it."""
        return asdict(self)


@torch.no_grad()
def fingerprint(model: nn.Module) -> Fingerprint:
    """The fingerprint of ``model``; reads a few of its weights from their device."""
    named = sorted(model.state_dict().items())
    listed = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in named)
    floating = [(name, t) for name, t in named if t.is_floating_point() and t.numel()]
    largest = sorted(floating, key=lambda pair: (-pair[1].numel(), pair[0]))[:PROBES]
    return Fingerprint(
        # An optimised class goes by its original's name.
        model=type(model).__name__,
        parameters=sum(t.numel() for _, t in named),
        shapes=hashlib.sha256(listed.encode()).hexdigest()[:16],
        magnitudes={name: float(t.float().abs().mean()) for name, t in largest},
    )
