"""A calibration, a training or a test is shown every step of an optimised module."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fxcache.program import Role
from fxcache.rewrite.variants import Variant, Variants
from fxcache.runtime.features.feature import Feature
from fxcache.runtime.record import Run
from fxcache.runtime.step_context import StepContext


class RecordedStep(NamedTuple):
    """One step: what was stored, returned and observed.

    Attributes:
        run: The same object for all steps of one trajectory.
        step: The number of the step in it, from 0.
        values: What the step computed for the cache, by the name of the group of cache points. It
            is overwritten later: copy what is kept.
        output: The first tensor that the module returns.
        signal: What the policy observes.
        variants: The graphs for the call.
        variant: The one of them that ran.
        inputs: What it ran on.
    """

    run: Run
    step: int
    values: Mapping[str, tuple[Tensor, ...]]
    output: Tensor
    signal: Tensor | None
    variants: Variants
    variant: Variant
    inputs: tuple[Tensor, ...]

    @property
    def user_inputs(self) -> tuple[Tensor, ...]:
        """The call's own tensors."""
        return self.inputs[: self.variant.signature.num_user]

    @property
    def latent(self) -> Tensor:
        """The call's latent, or the first of several."""
        roles = [given.role for given in self.variants.program.inputs]
        return self.inputs[roles.index(Role.LATENT)]


Recorder = Callable[[RecordedStep], None]


class Recording(Feature):
    """Shows each step of all trajectories to a recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def after_step(self, step: StepContext, results: tuple[Any, ...]) -> tuple[Any, ...]:
        self._recorder(recorded(step, results))
        return results


def recorded(step: StepContext, results: Sequence[Any]) -> RecordedStep:
    """The step as a recorder is shown it."""
    variants, variant, trajectory = step.variants, step.variant, step.trajectory
    assert variant is not None
    written = variant.signature.unpack(results).cached
    numbers = {name: variants.plan.numbers({name}) for name in variants.plan.groups}
    values = {
        name: tuple(written[n] for n in found)
        for name, found in numbers.items()
        if all(n in written for n in found)
    }
    return RecordedStep(
        trajectory.run,
        trajectory.step,
        values,
        first_tensor(results),
        step.signal,
        variants,
        variant,
        step.inputs,
    )


def first_tensor(results: Sequence[Any]) -> Tensor:
    """The first of ``results`` that is a tensor."""
    return next(r for r in results if isinstance(r, Tensor))
