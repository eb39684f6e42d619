"""Recording: calls a function after every step, for calibration, training and tests."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fxcache.program import Role
from fxcache.rewrite.variant import Variant
from fxcache.rewrite.variants import Variants
from fxcache.runtime.features.feature import Feature
from fxcache.runtime.record import Run
from fxcache.runtime.step_context import StepContext


class RecordedStep(NamedTuple):
    """The values that one step stored, returned and observed.

    Attributes:
        run: The run of the step: one object for all steps of a trajectory.
        step: The index of the step in the run, from 0.
        values: The values for the cache, by the name of the group of cache points. They are
            overwritten later: copy values that you keep.
        output: The first tensor that the module returns.
        signal: The signal that the policy observes.
        variants: The graphs for the call.
        variant: The variant that ran.
        inputs: The inputs of the variant.
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
        """The tensors of the call."""
        return self.inputs[: self.variant.signature.num_user]

    @property
    def latent(self) -> Tensor:
        """The latent of the call; the first one if there are several."""
        roles = [given.role for given in self.variants.program.inputs]
        return self.inputs[roles.index(Role.LATENT)]


Recorder = Callable[[RecordedStep], None]


class Recording(Feature):
    """Calls a recorder after each step of all trajectories."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def needs_values(self, step: StepContext) -> bool:
        del step
        return True

    def after_step(self, step: StepContext, results: tuple[Any, ...]) -> tuple[Any, ...]:
        self._recorder(record_of(step, results))
        return results


def record_of(step: StepContext, results: Sequence[Any]) -> RecordedStep:
    """Return the record of a step."""
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
    """Return the first of ``results`` that is a tensor."""
    return next(r for r in results if isinstance(r, Tensor))
