"""Which part of a guided batch a call computes, and what passes between the halves."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fxcache.errors import CaptureError, CutError
from fxcache.rewrite.runner import Variants
from fxcache.runtime.captures import Captures
from fxcache.runtime.halves import Difference, Halves, equal_halves, parted
from fxcache.runtime.offload import Offload
from fxcache.runtime.trajectory.trajectory import Trajectory
from fxcache.schedule import GuidanceCache, Step
from fxcache.signature import Call, Signature


class Part(Enum):
    """What a call computes of its batch."""

    WHOLE = "all of it"
    BOTH = "both halves of the guidance"  # and keeps what the steps after it need
    HALF = "the conditional half"


@dataclass(frozen=True, eq=False)
class Half:
    """The call of one of the ``halves`` by itself, and the ``variants`` for such calls.

    ``latents``: of both.
    """

    halves: Halves
    call: Call
    latents: Tensor
    variants: Variants


class Guidance:
    """What the option of that name asks for, carried out for all trajectories of one module."""

    def __init__(self, cache: GuidanceCache, signature: Signature, captures: Captures):
        self.cache, self._signature, self._captures = cache, signature, captures
        # For variants of half a batch: which of their results are half as large.
        self._sides: WeakKeyDictionary[Variants, tuple[bool, ...]] = WeakKeyDictionary()

    def part(self, trajectory: Trajectory, call: Call, step: Step) -> Part:
        """What ``call`` computes. Where it may be both halves, their latents are compared."""
        both = self.cache.computes_both(step) or trajectory.refresh
        if not both and trajectory.difference and trajectory.difference.fits(call.latent):
            return Part.HALF
        trajectory.difference = None
        if trajectory.guided:
            one_tensor = isinstance(call.arguments[call.latent_name], Tensor)
            trajectory.guided = one_tensor and equal_halves(call.latent)
            trajectory.run.guidance_waits += call.latent.device.type != "cpu"
        keeps = trajectory.guided and step.index >= self.cache.begins(step)
        return Part.BOTH if keeps else Part.WHOLE

    def half(self, module: nn.Module, call: Call, hooks: int) -> Half:
        """The conditional half of ``call``, captured now if need be under these ``hooks``."""
        halves = Halves(call.latent.shape[0], self.cache.conditional == "second")
        if call.state:
            raise CutError(
                "state objects cannot be split into the halves of the guidance",
                where=", ".join(path for path, _ in call.state.objects),
                remedy="leave guidance= out",
            )
        alone = self._captures.bound(module, halves.call(call, self._signature), hooks)
        try:
            variants = self._captures.find(module, alone, hooks)
        except CaptureError as error:
            raise CutError(
                f"half the batch cannot be captured by itself: {error.what}",
                where=f"guidance; {error.where}",
                remedy="leave guidance= out",
            ) from error
        return Half(halves, alone, call.latent, variants)

    def require_separable(self, half: Half, results: Sequence[Any]) -> None:
        """CutError unless the halves of ``results`` can be computed apart, and parted."""
        if half.variants in self._sides:
            return
        found = self._sides[half.variants] = sides(half, results, self._captures.offload)
        outputs = zip(results[: half.variants.num_outputs], found, strict=False)
        for output in (o for o, sided in outputs if sided and self.cache.parts_frequencies):
            parted(output)

    def keep(self, trajectory: Trajectory, half: Half, results: Sequence[Any]) -> list[Any]:
        """Keep the difference of both halves' outputs; the conditional half of ``results``."""
        self.require_separable(half, results)
        sided = self._sides[half.variants]
        outputs = {i: results[i] for i in range(half.variants.num_outputs) if sided[i]}
        trajectory.difference = Difference(
            half.halves, half.latents, outputs, self.cache.parts_frequencies
        )
        pairs = zip(results, sided, strict=True)
        return [half.halves.conditional(value) if is_sided else value for value, is_sided in pairs]

    def rebuilt(self, trajectory: Trajectory, outputs: Sequence[Any], step: Step) -> list[Any]:
        """Both halves of the conditional one's ``outputs``."""
        assert trajectory.difference is not None
        return trajectory.difference.rebuild(outputs, self.cache.weights(step))


def sides(half: Half, results: Sequence[Any], offload: Offload) -> tuple[bool, ...]:
    """Which ``results`` of both halves are the halves' own; CutError if they are not separable."""
    with torch.no_grad():
        alone = offload.run(half.variants.full, *half.call.tensors)
    if len(alone) != len(results):
        raise CutError(
            "half the batch is cut elsewhere than all of it",
            where="guidance",
            remedy="name the cut: optimize(cut=...)",
        )
    pairs = zip(results, alone, strict=True)
    return tuple(isinstance(a, Tensor) and half.halves.sided(b, a) for b, a in pairs)
