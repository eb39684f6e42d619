"""Splits batches of classifier-free guidance, and rebuilds one half from the other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fxcache._torch import tree_map_only
from fxcache.call import Call
from fxcache.errors import CutError
from fxcache.signature import Signature

RADIUS = 5  # low frequencies are below 1/5 of the smaller side, as in FasterCache
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}  # relative; HALF_PRECISION for the rest
HALF_PRECISION = 5e-2


@dataclass(frozen=True)
class CFGSplit:
    """The split of a batch into its conditional and its unconditional half.

    Attributes:
        size: The size of the whole batch.
        second: Whether the conditional half is the second one.
    """

    size: int
    second: bool

    def conditional(self, value: Tensor) -> Tensor:
        """Return the conditional half of ``value``."""
        return value.chunk(2)[self.second]

    def part_of(self, value: Tensor) -> Tensor:
        """Return the conditional half of ``value``; all of it if it has another batch size."""
        return self.conditional(value) if self.batched(value) else value

    def batched(self, value: object) -> bool:
        """Return whether ``value`` is a tensor of this batch size."""
        return isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == self.size

    def call(self, call: Call, signature: Signature) -> Call:
        """Return the call of the conditional half. Inputs of another batch size stay whole."""
        args, kwargs = tree_map_only(Tensor, self.part_of, call.invocation)
        return signature.call(args, kwargs)

    def has_halves(self, both: Tensor, alone: Tensor) -> bool:
        """Return whether a result for both halves has a part for each half.

        The batch may be folded: ``[batch · frames, …]``.

        Args:
            both: The result for both halves.
            alone: The result for the conditional half alone.

        Raises:
            CutError: The values differ, so that the halves cannot be computed separately.
        """
        halves = both.shape != alone.shape
        expected = self.conditional(both) if halves and both.dim() and len(both) > 1 else both
        error = relative_error(alone, expected) if alone.shape == expected.shape else math.inf
        if error <= TOLERANCES.get(both.dtype, HALF_PRECISION):
            return halves
        raise CutError(
            "the halves of the batch cannot be computed separately: the conditional half alone "
            f"differs by {error:.1%}",
            where="guidance",
            remedy="leave guidance= out",
        )

    def difference(self, output: Tensor) -> Tensor:
        """Return the unconditional minus the conditional half, in float32 or float64."""
        halves = at_least_single(output).chunk(2)
        return halves[not self.second] - halves[self.second]

    def join(self, conditional: Tensor, difference: Tensor) -> Tensor:
        """Return both halves of an output, from the conditional half and the ``difference``."""
        rebuilt = (at_least_single(conditional) + difference).to(conditional.dtype)
        return torch.cat([rebuilt, conditional] if self.second else [conditional, rebuilt])


class GuidanceDifference:
    """The differences of both halves' outputs, from the last step that computed both."""

    def __init__(
        self, split: CFGSplit, latents: Tensor, outputs: Mapping[int, Tensor], by_frequency: bool
    ):
        """Compute the differences.

        Args:
            split: The split of the batch.
            latents: The latents of the call.
            outputs: The outputs that have both halves, by index.
            by_frequency: Whether low and high frequencies are kept separately.
        """
        self.split, self._kind = split, kind_of(latents)
        differences = {index: split.difference(output) for index, output in outputs.items()}
        self._parts = {
            index: split_frequencies(difference) if by_frequency else (difference,)
            for index, difference in differences.items()
        }

    def fits(self, latents: Tensor) -> bool:
        """Return whether the latents have the shape, dtype and device of the kept ones."""
        return self._kind == kind_of(latents)

    def rebuild(self, outputs: Sequence[Any], weights: tuple[float, ...]) -> list[Any]:
        """Return ``outputs`` of the conditional half with both halves; one weight for each part."""
        rebuilt = list(outputs)
        for index, parts in self._parts.items():
            weighted = [w * part for w, part in zip(weights, parts, strict=False)]
            rebuilt[index] = self.split.join(outputs[index], torch.stack(weighted).sum(0))
        return rebuilt

    @property
    def nbytes(self) -> int:
        """The bytes of the differences."""
        return sum(part.nbytes for parts in self._parts.values() for part in parts)


def kind_of(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


def equal_halves(latents: Tensor) -> bool:
    """Return whether the batch holds the same latents twice. Waits for their device."""
    if not latents.dim() or not len(latents) or len(latents) % 2:
        return False
    return torch.equal(*latents.chunk(2))


def split_frequencies(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Return the low and the high frequencies of ``[…, H, W]``. Their sum is the input.

    Low frequencies lie in a circle around 0, with the radius of FasterCache (2410.19355).
    """
    if picture.dim() < 4:
        raise CutError(
            f"a prediction of the shape {list(picture.shape)} has no rows and columns, so that its "
            "frequencies cannot be split",
            where="guidance",
            remedy="do not split frequencies: GuidanceCache(low=0, high=0)",
        )
    height, width = picture.shape[-2:]
    rows = torch.fft.fftfreq(height, 1 / height, device=picture.device)
    columns = torch.fft.rfftfreq(width, 1 / width, device=picture.device)
    inside = rows[:, None] ** 2 + columns**2 <= (min(height, width) // RADIUS) ** 2
    low = torch.fft.irfft2(torch.fft.rfft2(picture) * inside, s=(height, width))
    return low, picture - low


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖; 0 for 0 / 0, infinity for other x / 0."""
    found, expected = at_least_single(found), at_least_single(expected)
    error, size = float((found - expected).norm()), float(expected.norm())
    if not error:
        return 0.0
    return error / size if size else math.inf


def at_least_single(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))
