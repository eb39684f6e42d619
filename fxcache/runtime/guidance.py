"""Which part of a guided batch a call computes, and what passes between the halves."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fxcache.errors import CutError
from fxcache.rewrite.runner import Variants
from fxcache.runtime.branch import Branch
from fxcache.runtime.captures import Captures
from fxcache.runtime.halves import Difference, Halves, equal_halves
from fxcache.schedule import GuidanceCache, Step
from fxcache.signature import Call, Signature


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

    def __init__(self, cache: GuidanceCache, signature: Signature, captures: Captures):
        self.cache, self._signature, self._captures = cache, signature, captures
        # For variants of half a batch: which of their results are half as large.
        self._sides: WeakKeyDictionary[Variants, tuple[bool, ...]] = WeakKeyDictionary()

    def part(self, branch: Branch, call: Call, step: Step) -> Part:
        """What ``call`` computes. Where it may be both halves, their latents are compared."""
        both = self.cache.computes_both(step) or branch.forced
        if branch.difference is not None and not both:
            return Part.HALF
        branch.difference = None
        if branch.guided:
            branch.guided = equal_halves(call.latent)
            branch.run.guidance_waits += call.latent.device.type != "cpu"
        keeps = branch.guided and step.index >= self.cache.begins(step)
        return Part.BOTH if keeps else Part.WHOLE

    def half(self, module: nn.Module, call: Call) -> Half:
        """The conditional half of ``call``, captured now if need be."""
        halves = Halves(call.latent.shape[0], self.cache.conditional == "second")
        alone = halves.call(call, self._signature)
        return Half(halves, alone, self._captures.find(module, alone))

    def keep(
        self, branch: Branch, half: Half, outputs: Sequence[Any], written: Sequence[Tensor]
    ) -> list[Tensor]:
        """Keep the difference of both halves' ``outputs``; the conditional half of ``written``."""
        if half.variants not in self._sides:
            self._sides[half.variants] = sides(half, [*outputs, *written])
        branch.difference = Difference(half.halves, outputs, self.cache.parts_frequencies)
        sided = self._sides[half.variants][len(outputs) :]
        pairs = zip(written, sided, strict=True)
        return [half.halves.conditional(value) if is_sided else value for value, is_sided in pairs]

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
