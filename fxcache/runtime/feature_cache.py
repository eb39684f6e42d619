"""The cached values: buffers that fxcache owns, allocated once, written in place."""

from collections.abc import Sequence

import torch
from torch import Tensor


class FeatureCache:
    """Buffers for the values at one cut plan's cut.

    Stable addresses and no allocator traffic during a run; a copy, so that no later kernel or
    captured CUDA graph can overwrite what was cached.
    """

    def __init__(self) -> None:
        self.buffers: tuple[Tensor, ...] = ()

    def write(self, values: Sequence[Tensor]) -> None:
        """Copy ``values`` in; allocate anew only if shape, dtype, device or layout changed."""
        if not self.fits(values):
            with torch.inference_mode(False), torch.no_grad():
                self.buffers = tuple(torch.empty_like(v) for v in values)
        for buffer, value in zip(self.buffers, values, strict=True):
            buffer.copy_(value)

    def fits(self, values: Sequence[Tensor]) -> bool:
        """Whether the buffers can hold ``values`` as they are: copying must never broadcast."""
        return len(self.buffers) == len(values) and all(
            b.shape == v.shape
            and b.dtype == v.dtype
            and b.device == v.device
            and b.stride() == v.stride()
            for b, v in zip(self.buffers, values, strict=True)
        )

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(b.untyped_storage().nbytes() for b in self.buffers)
