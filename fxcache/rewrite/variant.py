"""A variant: one graph as a pure function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor, fx

from fxcache._torch import with_direct_calls
from fxcache.capture.provided import CompiledGraph
from fxcache.rewrite.variant_signature import VariantSignature


@dataclass(frozen=True, eq=False)
class Variant:
    """A graph as a pure function.

    Attributes:
        module: The callable graph: ``module(*signature.bind(…))``. It shares the weights of the
            original module.
        signature: The inputs and outputs.
        flops: The FLOPs of its step, including the prefix; those of one timestep for a
            ``TimestepPart``; 0 for another part of a step.
        buffers: Fake tensors like the buffers that it writes, by the number of their cache point.
        code: Machine code that runs in place of the module; None if there is none.
    """

    module: fx.GraphModule
    signature: VariantSignature
    flops: int
    buffers: Mapping[int, tuple[Tensor, ...]]
    code: CompiledGraph | None = None

    @cached_property
    def function(self) -> Callable[..., tuple[Any, ...]]:
        """What runs in eager mode: the machine code, or the operators of the module."""
        return self.code or with_direct_calls(self.module)


class TimestepPart(NamedTuple):
    """A graph that computes hoisted values which depend on the timestep, for one timestep.

    Attributes:
        numbers: The numbers of the hoisted values that it returns, in order.
        variant: The graph.
    """

    numbers: tuple[int, ...]
    variant: Variant
