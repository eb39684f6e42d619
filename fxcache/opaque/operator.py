"""The operator ``fxcache::call_submodule``: it calls a submodule as it is."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx

from fxcache._torch import below_autograd, is_being_traced
from fxcache.opaque.call import OpaqueCall, registered

NAME = "call_submodule"
SCHEMA = f"{NAME}(int handle, Tensor[] tensors, Tensor[] weights) -> Tensor[]"
LIBRARIES: list[torch.library.Library] = []  # an operator lives as long as its library


def call_of(node: fx.Node) -> OpaqueCall | None:
    """Return the call of a submodule that ``node`` makes; None for any other node."""
    if node.op != "call_function" or str(node.target) != f"fxcache.{NAME}.default":
        return None
    return registered(node.args[0])  # type: ignore[arg-type]


@cache
def operator() -> Any:
    """Return the operator that calls a submodule. It is registered at the first use.

    Its results take no part in CUDA graphs, because the submodule may wait for the device.
    """
    library = torch.library.Library("fxcache", "FRAGMENT")
    LIBRARIES.append(library)
    library.define(SCHEMA, tags=(torch.Tag.cudagraph_unsafe, torch.Tag.needs_exact_strides))
    library.impl(NAME, run, "CompositeExplicitAutograd")
    library.impl(NAME, run_or_trace, "Autograd")
    torch.library.register_fake(f"fxcache::{NAME}", fake, lib=library)
    return torch.ops.fxcache.call_submodule.default


def run(handle: int, tensors: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """The kernel: call the submodule."""
    return registered(handle).run(tensors, weights)


def run_or_trace(handle: int, tensors: Sequence[Tensor], weights: Sequence[Tensor]) -> Any:
    """The kernel for gradients, which runs first.

    It calls the submodule with gradients as they are, and counts of writes too: the submodule runs
    as without fxcache.
    """
    if not is_being_traced([*tensors, *weights]):
        return run(handle, tensors, weights)
    with below_autograd():
        return operator()(handle, tensors, weights)


def fake(handle: int, tensors: Sequence[Tensor], _weights: Sequence[Tensor]) -> list[Tensor]:
    """The kernel for traces: results without values."""
    return [result.empty(tensors) for result in registered(handle).tensors]
