"""Which part of a guided batch a call computes, and what passes between the halves."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fxcache.errors import CutError
from fxcache.rewrite.runner import Variants
from fxcache.runtime.branch import Branch
from fxcache.runtime.halves import Difference, Halves, guided
from fxcache.schedule import GuidanceCache, Step
from fxcache.signature import Call


class Part(Enum):
    """What a call computes of its batch."""

    WHOLE = "all of it"
    BOTH = "both halves of the guidance"  # and keeps what the steps after it need
    HALF = "the conditional half"


@dataclass(frozen=True, eq=False)
class Half:
    """The call of one of the ``halves`` by itself, and the ``variants`` for such calls."""

    halves: Halves
    call: Call
    variants: Variants


class Guidance:
    """What the option of that name asks for, carried out for all trajectories of one module."""

    def __init__(self, cache: GuidanceCache):
        self.cache = cache
        # For variants of half a batch: which of their results are half as large.
        self._sides: WeakKeyDictionary[Variants, tuple[bool, ...]] = WeakKeyDictionary()

    def part(self, branch: Branch, call: Call, step: Step) -> Part:
        """What ``call`` computes. Where it may be both halves, their latents are compared."""
        both = self.cache.computes_both(step) or branch.forced
        if branch.difference is not None and not both:
            return Part.HALF
        branch.difference = None
        if branch.guided:
            branch.guided = guided(call)
            branch.run.guidance_waits += call.latent.device.type != "cpu"
        keeps = branch.guided and step.index >= self.cache.begins(step)
        return Part.BOTH if keeps else Part.WHOLE

    def halves(self, call: Call) -> Halves:
        return Halves(call.latent.shape[0], self.cache.conditional == "second")

    def keep(self, branch: Branch, half: Half, results: Sequence[Any]) -> list[Any]:
        """Keep the difference of what both halves gave; the conditional half of ``results``."""
        if half.variants not in self._sides:
            self._sides[half.variants] = sides(half, results)
        outputs = results[: half.variants.num_outputs]
        branch.difference = Difference(half.halves, outputs, self.cache.parts_frequencies)
        pairs = zip(results, self._sides[half.variants], strict=True)
        return [half.halves.conditional(result) if sided else result for result, sided in pairs]

    def rebuilt(self, branch: Branch, outputs: Sequence[Any], step: Step) -> list[Any]:
        """Both halves of the conditional one's ``outputs``."""
        assert branch.difference is not None
        return branch.difference.rebuild(outputs, self.cache.weights(step))


def sides(half: Half, results: Sequence[Any]) -> tuple[bool, ...]:
    """Which ``results`` of both halves are the halves' own; CutError if they are not separable."""
    with torch.no_grad():
        alone = half.variants.full(*half.call.tensors)
    if len(alone) != len(results):
        raise CutError(
            "half the batch is cut elsewhere than all of it",
            where="guidance",
            remedy="name the cut: optimize(cut=...)",
        )
    pairs = zip(results, alone, strict=True)
    return tuple(isinstance(a, Tensor) and half.halves.sided(b, a) for b, a in pairs)
