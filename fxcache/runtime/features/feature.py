"""The base class of the engine's optional features: hooks around each step."""

from typing import Any

from torch import nn

from fxcache.runtime.step_context import StepContext


class Feature:
    """An optional feature of one module's engine. Every hook does nothing by default.

    Data that a feature keeps between the steps of a trajectory is in ``Trajectory.slot``. At each
    step, the engine calls the hooks in this order, each hook for all features.
    """

    def before_capture(self, step: StepContext, module: nn.Module) -> None:
        """Run after the trajectory is found. The hook may replace ``step.call``."""

    def before_step(self, step: StepContext) -> None:
        """Run after the variants are found, and it is known whether the step must refresh."""

    def after_prefix(self, step: StepContext) -> None:
        """Run after the prefix, which computed ``step.signal``."""

    def after_decision(self, step: StepContext, refresh: bool) -> None:
        """Run after it is decided whether the step refreshes everything."""

    def needs_values(self, step: StepContext) -> bool:
        """Return whether ``after_step`` needs the values that the variant stores."""
        del step
        return False

    def after_step(self, step: StepContext, results: tuple[Any, ...]) -> tuple[Any, ...]:
        """Run after the variant. Return its ``results``, or others of the same structure."""
        del step
        return results
