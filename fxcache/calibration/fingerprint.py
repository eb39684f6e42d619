"""The fingerprint of a model, by which a plan recognises the model that it was made for."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import plain_parts
from fxcache.checks import is_number

PROBES = 8
TOLERANCE = 0.01  # relative; allows for half precision and for small adapters


@dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of a model, by which a plan recognises it.

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
            planned, actual = f"{self.parameters:,}", f"{other.parameters:,}"
            if planned == actual:
                return [f"the plan is for a {self.model} with weights of other shapes"]
            return [f"the plan is for a {self.model} of {planned} parameters, this has {actual}"]
        return [
            f"the mean magnitude of {name} is {then:.4g} in the plan and {now:.4g} in this model"
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
    """Return the fingerprint of ``model``. Reads a few of its weights from their device."""
    named = sorted(stored_tensors(model), key=itemgetter(0))
    listed = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in named)
    inside = {name for name, _ in named}.difference(tensor_names(model))
    floating = [
        (name, t)
        for name, t in named
        # Eight bits inside a quantised weight say nothing without its scales, which are probed.
        if t.is_floating_point() and t.numel() and not (name in inside and t.element_size() == 1)
    ]
    largest = sorted(floating, key=lambda pair: (-pair[1].numel(), pair[0]))[:PROBES]
    return Fingerprint(
        # An optimised class has the name of the original class.
        model=type(model).__name__,
        parameters=sum(t.numel() for _, t in named),
        shapes=hashlib.sha256(listed.encode()).hexdigest()[:16],
        magnitudes={name: float(t.float().abs().mean()) for name, t in largest},
    )


def stored_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and value of each tensor in the state dict of ``model``.

    Quantised weights yield the plain tensors in them. The state dict itself is not made: some
    quantised layers convert their weights for it.
    """
    for path, module in model.named_modules(remove_duplicate=False):
        hidden = module._non_persistent_buffers_set
        kept = {name: t for name, t in module._buffers.items() if name not in hidden}
        for name, tensor in {**module._parameters, **kept}.items():
            if tensor is not None:
                for suffix, part in plain_parts(tensor).items():
                    yield f"{path}.{name}{suffix}".removeprefix("."), part.detach()


def tensor_names(model: nn.Module) -> Iterator[str]:
    """Yield the names of all parameters and buffers."""
    for named in (model.named_parameters, model.named_buffers):
        yield from (name for name, _ in named(remove_duplicate=False))
