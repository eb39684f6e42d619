"""Guidance at half the batch: computes one half at some steps and rebuilds the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fxcache.call import Call
from fxcache.errors import CaptureError, ConfigError, CutError, UnknownLengthError
from fxcache.policies import GuidanceCache
from fxcache.rewrite.variants import Variants
from fxcache.runtime.captures import Captures
from fxcache.runtime.features.cfg_split import (
    CFGSplit,
    GuidanceDifference,
    equal_halves,
    split_frequencies,
)
from fxcache.runtime.features.feature import Feature
from fxcache.runtime.notices import Notices
from fxcache.runtime.offload import Offload
from fxcache.runtime.record import is_asynchronous
from fxcache.runtime.step_context import CFGPhase, StepContext
from fxcache.signature import Signature


@dataclass(frozen=True, eq=False)
class ConditionalCall:
    """The conditional half of a call as a separate call.

    Attributes:
        split: The split of the batch.
        call: The call of the conditional half.
        latents: The latents of both halves.
        variants: The graphs for such calls.
    """

    split: CFGSplit
    call: Call
    latents: Tensor
    variants: Variants


class GuidanceSlot:
    """The data of a trajectory for the halves of its guidance.

    Attributes:
        guided: Whether both halves had the same latents at every step so far.
        difference: The differences of outputs at the last step that computed both halves.
        conditional: The conditional half of the running call; None if it is not needed.
    """

    def __init__(self) -> None:
        self.guided = True
        self.difference: GuidanceDifference | None = None
        self.conditional: ConditionalCall | None = None

    def fork(self) -> Self:
        """Return the slot for a copy of the trajectory, without cached values."""
        copy = type(self)()
        copy.guided = self.guided
        return copy

    @property
    def nbytes(self) -> int:
        """The bytes of the differences."""
        return self.difference.nbytes if self.difference else 0


class Guidance(Feature):
    """Computes both halves of a guided batch at some steps, and one half at the others."""

    def __init__(
        self, cache: GuidanceCache, signature: Signature, captures: Captures, notices: Notices
    ) -> None:
        self.cache, self._signature = cache, signature
        self._captures, self._notices = captures, notices
        # By variants of half a batch: which results have a part for each half of the batch.
        self._has_halves: WeakKeyDictionary[Variants, tuple[bool, ...]] = WeakKeyDictionary()

    def before_capture(self, step: StepContext, module: nn.Module) -> None:
        slot = step.trajectory.slot(GuidanceSlot)
        slot.conditional = None
        step.phase = self._phase(step, slot)
        if not slot.guided or (step.phase is CFGPhase.WHOLE and not step.starts):
            return
        slot.conditional = conditional = self._conditional(step, module)
        if step.phase is CFGPhase.BOTH:
            step.stored_as = conditional.call, conditional.variants
        elif step.phase is CFGPhase.CONDITIONAL:
            step.call, step.half = conditional.call, int(conditional.split.second)

    def _phase(self, step: StepContext, slot: GuidanceSlot) -> CFGPhase:
        """Return what the step computes. Warn if it must always compute the whole batch."""
        effect = "Both halves are computed at every step."
        try:
            phase = self._scheduled_phase(step, slot)
        except UnknownLengthError as error:
            self._notices.warn_unknown_length(error, effect)
            return CFGPhase.WHOLE
        if not slot.guided:
            self._notices.warn(
                "the batch is not one tensor that holds the same latents twice",
                "Leave guidance= out if no batch holds both halves of classifier-free guidance.",
                effect,
            )
        return phase

    def _scheduled_phase(self, step: StepContext, slot: GuidanceSlot) -> CFGPhase:
        """Return what the step computes. Before it computes both halves, compare their latents."""
        call, trajectory = step.call, step.trajectory
        both = self.cache.computes_both(step.now) or trajectory.refresh
        if not both and slot.difference and slot.difference.fits(call.latent):
            return CFGPhase.CONDITIONAL
        slot.difference = None
        if slot.guided:
            one_tensor = isinstance(call.arguments[call.latent_name], Tensor)
            slot.guided = one_tensor and equal_halves(call.latent)
            trajectory.run.guidance_waits += is_asynchronous(call.latent.device)
        keeps = slot.guided and step.now.index >= self.cache.begins(step.now)
        return CFGPhase.BOTH if keeps else CFGPhase.WHOLE

    def _conditional(self, step: StepContext, module: nn.Module) -> ConditionalCall:
        """Return the conditional half of the call, and capture it if necessary."""
        call, hooks = step.call, step.hooks
        split = CFGSplit(call.latent.shape[0], self.cache.conditional == "second")
        if call.state:
            raise CutError(
                "state objects cannot be split into the halves of the guidance",
                where=", ".join(path for path, _ in call.state.objects),
                remedy="leave guidance= out",
            )
        alone = self._captures.bound(module, split.call(call, self._signature), hooks)
        try:
            variants = self._captures.find(module, alone, hooks)
        except CaptureError as error:
            raise CutError(
                f"half the batch cannot be captured separately: {error.what}",
                where=f"guidance; {error.where}",
                remedy="leave guidance= out",
            ) from error
        if variants.program.writes:
            raise CutError(
                "the model writes to its arguments, which cannot be split into the halves",
                where="guidance",
                remedy="leave guidance= out",
            )
        return ConditionalCall(split, alone, call.latent, variants)

    def before_step(self, step: StepContext) -> None:
        if step.variants.frontier.process_groups:  # each process chooses its halves alone
            raise ConfigError(
                "several processes share the model, and guidance= cannot be agreed between them",
                where="guidance",
                remedy="leave guidance= out",
            )

    def after_prefix(self, step: StepContext) -> None:
        conditional = step.trajectory.slot(GuidanceSlot).conditional
        if conditional and step.phase is CFGPhase.BOTH and step.signal is not None:
            step.signal = conditional.split.part_of(step.signal)

    def needs_values(self, step: StepContext) -> bool:
        return step.phase is not CFGPhase.CONDITIONAL

    def after_step(self, step: StepContext, results: tuple[Any, ...]) -> tuple[Any, ...]:
        slot = step.trajectory.slot(GuidanceSlot)
        conditional, count = slot.conditional, step.variants.num_outputs
        if conditional is None:
            return results
        if step.phase is CFGPhase.WHOLE:
            self._require_separable(conditional, results)
            return results
        if step.phase is CFGPhase.BOTH:
            kept = self._keep(slot, conditional, results)
            return (*results[:count], *kept[count:])
        assert slot.difference is not None
        weights = self.cache.weights(step.now)
        return (*slot.difference.rebuild(results[:count], weights), *results[count:])

    def _require_separable(self, conditional: ConditionalCall, results: Sequence[Any]) -> None:
        """Raise CutError unless the halves can be computed separately, and split by frequency."""
        if conditional.variants in self._has_halves:
            return
        found = results_with_halves(conditional, results, self._captures.offload)
        self._has_halves[conditional.variants] = found
        outputs = zip(results[: conditional.variants.num_outputs], found, strict=False)
        for output in (o for o, halves in outputs if halves and self.cache.parts_frequencies):
            split_frequencies(output)

    def _keep(
        self, slot: GuidanceSlot, conditional: ConditionalCall, results: Sequence[Any]
    ) -> list[Any]:
        """Keep the differences of both halves. Return the conditional half of ``results``."""
        self._require_separable(conditional, results)
        halves, split = self._has_halves[conditional.variants], conditional.split
        outputs = {i: results[i] for i in range(conditional.variants.num_outputs) if halves[i]}
        slot.difference = GuidanceDifference(
            split, conditional.latents, outputs, self.cache.parts_frequencies
        )
        pairs = zip(results, halves, strict=True)
        return [split.conditional(value) if has_halves else value for value, has_halves in pairs]


def results_with_halves(
    conditional: ConditionalCall, results: Sequence[Any], offload: Offload
) -> tuple[bool, ...]:
    """Return which ``results`` have a part for each half; raise CutError if not separable."""
    with torch.no_grad():
        alone = offload.run(conditional.variants.full, *conditional.call.tensors)
    if len(alone) != len(results):
        raise CutError(
            "half the batch is cut at another place than the whole batch",
            where="guidance",
            remedy="name the cut: optimize(cut=...)",
        )
    pairs = zip(results, alone, strict=True)
    return tuple(isinstance(a, Tensor) and conditional.split.has_halves(b, a) for b, a in pairs)
