"""The cached values: buffers that fxcache owns, allocated once, written in place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fxcache.rewrite.fuse import Moments
from fxcache.rewrite.quantized import Quantized


def like(buffer: Tensor, value: Tensor) -> bool:
    """Whether ``buffer`` can hold ``value`` as it is: copying must never broadcast."""
    return (
        buffer.shape == value.shape
        and buffer.dtype == value.dtype
        and buffer.device == value.device
        and buffer.stride() == value.stride()
    )


@dataclass
class Held:
    """One cache point's value at call ``step``, and its derivatives by differences of ``distance``.

    ``known``: how many of the derivatives there are differences for; the others are zero.
    """

    buffers: tuple[Tensor, ...]
    step: int
    distance: int = 1
    known: int = 0
    moments: dict[Moments, Tensor] = field(default_factory=dict)  # of the value as it is now

    def write(self, value: Tensor, step: int) -> None:
        """Take ``value`` in, with its differences from what was held before."""
        self.moments.clear()
        if step <= self.step:
            self.restart(value, step)
            return
        self.distance, self.step = step - self.step, step
        self.known = min(self.known + 1, len(self.buffers) - 1)
        for order, buffer in enumerate(self.buffers):
            following = (value - buffer) / self.distance if order < self.known else None
            buffer.copy_(value)
            if following is None:
                break
            value = following

    def restart(self, value: Tensor, step: int) -> None:
        """Take ``value`` in as the first of its run."""
        self.moments.clear()
        self.step, self.distance, self.known = step, 1, 0
        self.buffers[0].copy_(value)
        for derivative in self.buffers[1:]:
            derivative.zero_()


class FeatureCache:
    """Buffers for the values at one plan's cache points, by their numbers.

    Stable addresses and no allocator traffic during a run; a copy, so that no later kernel or
    captured CUDA graph can overwrite what was cached.
    """

    def __init__(self) -> None:
        self._held: dict[int, Held] = {}
        self._last_use: torch.Event | None = None

    def used(self, event: torch.Event | None) -> None:
        """A call that read or wrote the buffers is over once ``event`` is; None on the host."""
        self._last_use = event

    @property
    def in_use(self) -> bool:
        """Whether the device still runs a call that reads or writes the buffers."""
        return self._last_use is not None and not self._last_use.query()

    def recycled(self) -> "FeatureCache":
        """Itself, for another trajectory: its work waits for that of the last one.

        The host may be done with a call that another stream still runs.
        """
        if self._last_use is not None:
            self._last_use.wait()
        return self

    def write(
        self,
        numbers: Sequence[int],
        values: Sequence[Tensor],
        step: int,
        order: int = 0,
        fresh: bool = True,
        quantized: Quantized | None = None,
    ) -> None:
        """Copy ``values`` in, those of the points ``numbers`` at call ``step``.

        Allocates anew only if shape, dtype, device or layout changed. ``order``: of the derivatives
        to keep. ``fresh``: what was held before is another run's, and gives no differences.
        ``quantized``: how values are kept, without derivatives; None for as they are.
        """
        if quantized:
            for number, value in zip(numbers, values, strict=True):
                self._quantize(number, value, step, quantized)
            return
        for number, value in zip(numbers, values, strict=True):
            held = self._held.get(number)
            if held is None or not like(held.buffers[0], value) or len(held.buffers) != order + 1:
                with torch.inference_mode(False), torch.no_grad():
                    buffers = tuple(torch.empty_like(value) for _ in range(order + 1))
                held = self._held[number] = Held(buffers, step)
                held.restart(value, step)
            elif fresh:
                held.restart(value, step)
            else:
                held.write(value, step)

    def _quantize(self, number: int, value: Tensor, step: int, quantized: Quantized) -> None:
        with torch.inference_mode(False), torch.no_grad():
            parts = quantized.of(value)
        held = self._held.get(number)
        if held is None or not all(map(like, held.buffers, parts)):
            self._held[number] = Held(parts, step)
            return
        held.step = step
        for buffer, part in zip(held.buffers, parts, strict=True):
            buffer.copy_(part)

    def read(self, numbers: Iterable[int]) -> tuple[Tensor, ...]:
        """The values of these points, each followed by its derivatives, or its scales."""
        return tuple(buffer for number in numbers for buffer in self._held[number].buffers)

    def moments(self, wanted: Iterable[Moments]) -> tuple[Tensor, ...]:
        """These statistics, each taken at the first reuse of what was written."""
        return tuple(self._moments(self._held[which.point], which) for which in wanted)

    def _moments(self, held: Held, which: Moments) -> Tensor:
        if which not in held.moments:
            with torch.inference_mode(False), torch.no_grad():
                held.moments[which] = which.of(held.buffers[0])
        return held.moments[which]

    def ages(self, numbers: Iterable[int], step: int) -> tuple[tuple[int, int], ...]:
        """For each point, how many calls ago it was written, and over how many it differs."""
        return tuple((step - self._held[n].step, self._held[n].distance) for n in numbers)

    def has(self, numbers: Iterable[int]) -> bool:
        """Whether these points were ever written."""
        return all(number in self._held for number in numbers)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        buffers = (buffer for held in self._held.values() for buffer in held.buffers)
        return sum(buffer.untyped_storage().nbytes() for buffer in buffers)
