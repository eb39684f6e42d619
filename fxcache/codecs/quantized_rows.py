"""Stores values in eight bits.

Each row has its own scale. A row holds the channels of a token in ``[B, T, C]``, or the positions
of a channel in ``[B, C, H, W]`` and more dimensions. With ``absmax`` the largest magnitude of a
row, a restored value differs from the original by at most

- int8: ``absmax / 254``, which is half of one of the 255 steps;
- float8_e4m3fn: 1/16 of the value, or ``absmax / 458,752`` if that is more;

plus the rounding of float32 and of the dtype of the restored value.
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
CHUNK = 2**22  # the number of elements to quantise at once
RESTORED = "fxcache_restored"  # the key of a note: eight-bit steps and scales of a restored value


@dataclass(frozen=True)
class QuantizedRows(Codec):
    """Stores one byte for each element, and a float32 scale for each row.

    Args:
        dtype: ``torch.int8`` or ``torch.float8_e4m3fn``.
        kernels: Whether a Triton kernel quantises where it can run.
    """

    dtype: torch.dtype
    kernels: bool = False

    def require_points(self, points: Iterable[CachePoint]) -> None:
        for point in points:
            value: Tensor = value_of(point.value)
            if not value.is_floating_point():
                raise CutError(
                    f"{point.value.name} has the dtype {dtype_name(value.dtype)}, which cannot be "
                    "quantised",
                    where=f"CacheConfig(dtype={self.dtype})",
                    remedy="leave out dtype, or choose another cut",
                )

    def slots(self, value: Tensor) -> tuple[Slot, ...]:
        shape = list(value.shape)
        for dim in dims_of_row(value.dim()):
            shape[dim] = 1
        eight_bits = torch.empty_like(value, dtype=self.dtype)
        return Slot(eight_bits), Slot(value.new_empty(shape, dtype=torch.float32), prefix="scale_")

    def quantize(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``value`` in eight bits, and the scale of each row, which is 1 for zeros."""
        dims = dims_of_row(value.dim())
        if self.kernels and value.is_contiguous() and can_take(value):
            kept, row = value.shape[: dims[0]], value.shape[dims[0] :]
            steps, scales = operator_of("quantize_rows")(value.view(-1, math.prod(row)), self.dtype)
            return steps.view(value.shape), scales.view(*kept, *[1] * len(row))
        exact = value.float()
        absmax = exact.abs().amax(dims, keepdim=True)
        scale = absmax / LARGEST[self.dtype]
        scale = torch.where(scale == 0, 1.0, scale)  # rows of zeros, or absmax / LARGEST underflows
        steps = exact / scale
        return (steps.round() if self.dtype is torch.int8 else steps).to(self.dtype), scale

    def encode(self, graph: fx.Graph, value: fx.Node, stored: list[fx.Node]) -> list[fx.Node]:
        del stored
        dims = dims_of_row(value_of(value).dim())
        exact = graph.call_function(aten.to.dtype, (value, torch.float32))
        magnitude = graph.call_function(aten.abs.default, (exact,))
        absmax = graph.call_function(aten.amax.default, (magnitude, list(dims), True))
        scale = graph.call_function(aten.div.Tensor, (absmax, LARGEST[self.dtype]))
        zero = graph.call_function(aten.eq.Scalar, (scale, 0))
        scale = graph.call_function(aten.where.ScalarSelf, (zero, 1.0, scale))
        steps = graph.call_function(aten.div.Tensor, (exact, scale))
        if self.dtype is torch.int8:
            steps = graph.call_function(aten.round.default, (steps,))
        return [graph.call_function(aten.to.dtype, (steps, self.dtype)), scale]

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

    def write(self, entries: Sequence[CacheEntry], values: list[Tensor]) -> None:
        for entry, value in zip(entries, values, strict=True):
            with torch.inference_mode(False), torch.no_grad():
                for rows in chunks_of_rows(value):
                    buffers = [buffer[rows] for buffer in entry.buffers]
                    copy_all(buffers, list(self.quantize(value[rows])))


def chunks_of_rows(value: Tensor) -> list[tuple[slice, ...]]:
    """Return slices of whole rows with about ``CHUNK`` elements each.

    They avoid a float32 copy of a whole large value.
    """
    if value.numel() <= 2 * CHUNK or value.dim() < 2:
        return [()]
    dim = 0 if value.dim() == 2 else 1
    size = value.shape[dim]
    rows = -(-CHUNK * size // value.numel())
    return [(slice(None),) * dim + (slice(i, i + rows),) for i in range(0, size, rows)]


def dims_of_row(rank: int) -> tuple[int, ...]:
    """Return the dimensions of a row, whose elements share a scale."""
    return tuple(range(2, rank)) if rank > 3 else (-1,)
