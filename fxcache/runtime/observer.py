"""What one trajectory has seen of the signal that its policy observes."""

import math

import torch
from torch import Tensor

from fxcache.rewrite.operators import can_take, operator_of
from fxcache.runtime.feature_cache import like
from fxcache.schedule import Since


class Observer:
    """Changes of a signal from call to call, each one number taken off the device."""

    def __init__(self) -> None:
        self.changes: list[float] = []  # since the last refresh
        self._reference: Tensor | None = None

    def note(self, signal: Tensor, since: Since, kernels: bool = False) -> None:
        """Measure ``signal`` against the last call's, or the last refresh's, which waits for it.

        ``kernels``: by one kernel, where it runs.
        """
        if self._reference is None:
            self._keep(signal)
            return
        self.changes.append(relative_l1(signal, self._reference, kernels))
        if since is Since.STEP:
            self._keep(signal)

    def refreshed(self, signal: Tensor) -> None:
        """The step that showed ``signal`` refreshes everything."""
        self.changes.clear()
        self._keep(signal)

    def restart(self) -> None:
        """Another run: forget the last."""
        self.changes.clear()
        self._reference = None

    def _keep(self, signal: Tensor) -> None:
        """A copy, in the same memory where it fits: the variant's own may be overwritten."""
        if self._reference is None or not like(self._reference, signal):
            with torch.inference_mode(False), torch.no_grad():
                self._reference = torch.empty_like(signal)
        self._reference.copy_(signal)


def relative_l1(now: Tensor, then: Tensor, kernels: bool = False) -> float:
    """‖now − then‖₁ / ‖then‖₁ in single precision; not a number where it cannot be told."""
    if now.shape != then.shape or now.device != then.device:
        return math.nan
    if kernels and can_take(now, then):
        return float(operator_of("relative_l1")(now, then))
    now, then = now.float(), then.float()
    return float((now - then).abs().mean() / then.abs().mean())
