"""A value is stored in eight bits, and restored where it is read.

Each row has a scale of its own: a token's channels in ``[B, T, C]``, a channel's positions in
``[B, C, H, W]`` and more dimensions. With ``absmax`` the largest magnitude of a row, what is
restored differs from what was stored by at most

- int8: ``absmax / 254``, half a step of the 255;
- float8_e4m3fn: 1/16 of the value, or ``absmax / 458,752`` where that is more;

and by the rounding of float32, and of the dtype that it is restored in.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from fxcache._torch import copy_all
from fxcache.codecs.codec import CacheEntry, Codec, Slot
from fxcache.errors import CutError
from fxcache.operators import can_take, operator_of
from fxcache.partition.cut import CachePoint
from fxcache.program import dtype_name, value_of

aten = torch.ops.aten
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: torch.finfo(torch.float8_e4m3fn).max}
CHUNK = 2**22  # elements that are quantised at once
RESTORED = "fxcache_restored"  # notes the eight-bit value and its scales on what is restored


@dataclass(frozen=True)
class QuantizedRows(Codec):
    """Stores one byte for each element, and a float32 scale for each row.

    Args:
        dtype: ``torch.int8`` or ``torch.float8_e4m3fn``.
        kernels: Whether a Triton kernel quantises to int8, where it runs.
    """

    dtype: torch.dtype
    kernels: bool = False

    def require_points(self, points: Iterable[CachePoint]) -> None:
        for point in points:
            value: Tensor = value_of(point.value)
            if not value.is_floating_point():
                raise CutError(
                    f"{point.value.name} is of {dtype_name(value.dtype)}, which is not quantised",
                    where=f"CacheConfig(dtype={self.dtype})",
                    remedy="leave out dtype, or cut elsewhere",
                )

    def slots(self, value: Tensor) -> tuple[Slot, ...]:
        shape = list(value.shape)
        for dim in dims_of_row(value.dim()):
            shape[dim] = 1
        eight_bits = torch.empty_like(value, dtype=self.dtype)
        return Slot(eight_bits), Slot(value.new_empty(shape, dtype=torch.float32), prefix="scale_")

    def quantize(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """``value`` in eight bits, and the scales of its rows, 1 for rows of zeros."""
        dims = dims_of_row(value.dim())
        if self.kernels and value.is_contiguous() and can_take(value):
            kept, row = value.shape[: dims[0]], value.shape[dims[0] :]
            steps, scales = operator_of("quantize_rows")(value.view(-1, math.prod(row)), self.dtype)
            return steps.view(value.shape), scales.view(*kept, *[1] * len(row))
        exact = value.float()
        absmax = exact.abs().amax(dims, keepdim=True)
        scale = absmax / LARGEST[self.dtype]
        scale = torch.where(scale == 0, 1.0, scale)  # of zeros, or of what is as good as zero
        steps = exact / scale
        return (steps.round() if self.dtype is torch.int8 else steps).to(self.dtype), scale

    def decode(
        self, graph: fx.Graph, stored: list[fx.Node], like: fx.Node, coefficient: fx.Node | None
    ) -> fx.Node:
        del coefficient
        steps, scale = stored
        exact = graph.call_function(aten.to.dtype, (steps, torch.float32))
        product = graph.call_function(aten.mul.Tensor, (exact, scale))
        restored = graph.call_function(aten.to.dtype, (product, value_of(like).dtype))
        for node in (exact, product):
            node.meta = {**like.meta, "val": value_of(like).float()}
        restored.meta = {**like.meta, RESTORED: (restored, steps, scale)}
        return restored

    def write(
        self, entries: Sequence[CacheEntry], values: list[Tensor], step: int, fresh: bool
    ) -> None:
        del fresh
        for entry, value in zip(entries, values, strict=True):
            with torch.inference_mode(False), torch.no_grad():
                for rows in chunks_of_rows(value):
                    buffers = [buffer[rows] for buffer in entry.buffers]
                    copy_all(buffers, list(self.quantize(value[rows])))
            entry.steps = (step,)
            entry.statistics.clear()


def chunks_of_rows(value: Tensor) -> list[tuple[slice, ...]]:
    """Slices of ``value``, of whole rows, that hold ``CHUNK`` elements or a little more each.

    No float32 copy of all of a large value is made.
    """
    if value.numel() <= 2 * CHUNK or value.dim() < 2:
        return [()]
    dim = 0 if value.dim() == 2 else 1
    size = value.shape[dim]
    rows = -(-CHUNK * size // value.numel())
    return [(slice(None),) * dim + (slice(i, i + rows),) for i in range(0, size, rows)]


def dims_of_row(rank: int) -> tuple[int, ...]:
    """The dimensions of a value of this many dimensions that share a scale."""
    return tuple(range(2, rank)) if rank > 3 else (-1,)
