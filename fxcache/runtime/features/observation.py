"""Observation: measures the change of a signal of the model for the policy."""

import math

import torch
from torch import Tensor

from fxcache.operators import can_take, operator_of
from fxcache.policies import Observation, Since
from fxcache.runtime.features.feature import Feature
from fxcache.runtime.features.precomputed_signals import precomputed_signal
from fxcache.runtime.offload import Offload
from fxcache.runtime.record import is_asynchronous
from fxcache.runtime.step_context import StepContext


class Observe(Feature):
    """Measures the signal's change at each step, and reads one number from the device."""

    def __init__(self, observation: Observation, offload: Offload, kernels: bool) -> None:
        self._since, self._offload, self._kernels = observation.since, offload, kernels

    def before_step(self, step: StepContext) -> None:
        step.signal = precomputed_signal(step, self._offload)
        if step.signal is not None:
            self.after_prefix(step)

    def after_prefix(self, step: StepContext) -> None:
        if step.forced:  # the step refreshes anyway: do not wait for the device
            return
        assert step.signal is not None
        signal, changes = step.signal, step.trajectory.changes
        history = step.trajectory.slot(SignalHistory)
        if history.reference is not None:
            changes.append(relative_l1(signal, history.reference, self._kernels))
            step.trajectory.run.signal_waits += is_asynchronous(signal.device)
        if history.reference is None or self._since is Since.STEP:
            history.keep(signal)

    def after_decision(self, step: StepContext, refresh: bool) -> None:
        if refresh and step.signal is not None:
            step.trajectory.changes.clear()
            step.trajectory.slot(SignalHistory).keep(step.signal)


class SignalHistory:
    """The earlier value that a trajectory's signal is compared with."""

    def __init__(self) -> None:
        self.reference: Tensor | None = None

    def keep(self, signal: Tensor) -> None:
        """Keep a copy of ``signal``, because the variant may overwrite its own tensor."""
        if self.reference is None or not alike(self.reference, signal):
            with torch.inference_mode(False), torch.no_grad():
                self.reference = torch.empty_like(signal)
        self.reference.copy_(signal)


def alike(some: Tensor, other: Tensor) -> bool:
    """Return whether both tensors have the same shape, dtype and device."""
    return (some.shape, some.dtype, some.device) == (other.shape, other.dtype, other.device)


def relative_l1(now: Tensor, then: Tensor, kernels: bool = False) -> float:
    """Return ‖now - then‖₁ / ‖then‖₁ in float32; NaN if shapes or devices differ.

    Args:
        now: The current signal.
        then: The earlier signal.
        kernels: Whether to use the Triton kernel if it can run.
    """
    if now.shape != then.shape or now.device != then.device:
        return math.nan
    if kernels and can_take(now, then):
        return float(operator_of("relative_l1")(now, then))
    now, then = now.float(), then.float()
    return float((now - then).abs().mean() / then.abs().mean())
