"""What an optional feature of the engine is: hooks around each step, and a slot per trajectory."""

from typing import Any

from torch import nn

from fxcache.runtime.step_context import StepContext


class Feature:
    """Base of the optional features of one module's engine. Every hook does nothing by default.

    What a feature keeps between the steps of one trajectory is a slot: see ``Trajectory.slot``.
    A step passes the hooks in this order, each through all features.
    """

    def before_capture(self, step: StepContext, module: nn.Module) -> None:
        """The trajectory is known; ``step.call`` may be replaced before its capture is found."""

    def before_step(self, step: StepContext) -> None:
        """The variants are known, and whether the step must refresh."""

    def after_prefix(self, step: StepContext) -> None:
        """The prefix has run; ``step.signal`` is what it computed."""

    def after_decision(self, step: StepContext, refresh: bool) -> None:
        """It is decided whether the step refreshes everything."""

    def after_step(self, step: StepContext, results: tuple[Any, ...]) -> tuple[Any, ...]:
        """The variant has run; returns its ``results``, perhaps replaced, as it returned them."""
        del step
        return results
