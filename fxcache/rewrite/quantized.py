"""A cache of eight bits a value: quantised when it is written, restored where it is read.

Each row has a scale of its own: a token's channels in ``[B, T, C]``, a channel's positions in
``[B, C, H, W]`` and more dimensions. With ``absmax`` the largest magnitude of a row, what is
restored differs from what was cached by at most

- int8: ``absmax / 254``, half a step of the 255;
- float8_e4m3fn: 1/16 of the value, or ``absmax / 458,752`` where that is more;

and by the rounding of float32, and of the dtype that it is restored in.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from fxcache.errors import CutError
from fxcache.partition.cut import CachePoint
from fxcache.program import dtype_name, new_input, value_of
from fxcache.rewrite.operators import can_take, operator_of

aten = torch.ops.aten
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: torch.finfo(torch.float8_e4m3fn).max}
SCALE = "scale_"  # begins the names of placeholders for it
RESTORED = "fxcache_restored"  # notes of what, and with which scales, a node restores a value


@dataclass(frozen=True)
class Quantized:
    """How values are kept: ``dtype`` is int8 or float8_e4m3fn.

    ``kernels``: whether a kernel quantises to int8, where it runs.
    """

    dtype: torch.dtype
    kernels: bool = False

    def of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """``value`` in this dtype, and the float32 scales of its rows, 1 for rows of zeros."""
        dims = rows_of(value.dim())
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

    def require_floats(self, points: Iterable[CachePoint]) -> None:
        """CutError where a value that is cached is no real number, which cannot be rounded."""
        for point in points:
            value: Tensor = value_of(point.value)
            if not value.is_floating_point():
                raise CutError(
                    f"{point.value.name} is of {dtype_name(value.dtype)}, which is not quantised",
                    where=f"CacheConfig(dtype={self.dtype})",
                    remedy="leave out dtype, or cut elsewhere",
                )

    def placeholders(self, graph: fx.Graph, name: str, like: fx.Node) -> list[fx.Node]:
        """Inputs of ``graph``: what ``of`` makes of a value ``like`` this one."""
        parts = Quantized(self.dtype).of(value_of(like))
        made = [new_input(graph, f"{prefix}{name}", like) for prefix in ("", SCALE)]
        for node, part in zip(made, parts, strict=True):
            node.meta["val"] = part
        return made

    def restore(self, graph: fx.Graph, parts: list[fx.Node], like: fx.Node) -> fx.Node:
        """The value of ``parts`` in ``graph``, at its insertion point, in the dtype of ``like``."""
        steps, scale = parts
        exact = graph.call_function(aten.to.dtype, (steps, torch.float32))
        product = graph.call_function(aten.mul.Tensor, (exact, scale))
        restored = graph.call_function(aten.to.dtype, (product, value_of(like).dtype))
        for node in (exact, product):
            node.meta = {**like.meta, "val": value_of(like).float()}
        restored.meta = {**like.meta, RESTORED: (restored, steps, scale)}
        return restored


def rows_of(rank: int) -> tuple[int, ...]:
    """The dimensions that share a scale."""
    return tuple(range(2, rank)) if rank > 3 else (-1,)
