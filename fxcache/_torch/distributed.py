"""Access to tensors that several processes share, and to collectives."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = [
    "dtensor_from",
    "dtensors_as_operators",
    "exchanges_data",
    "greatest_of",
    "is_collective",
    "is_dtensor",
    "local_part",
]

NAMESPACES = frozenset({"_c10d_functional", "_c10d_functional_autograd", "c10d", "_dtensor"})
EXCHANGES = ("torch.distributed.", *(f"torch.ops.{name}" for name in sorted(NAMESPACES)))


def exchanges_data(function: object) -> bool:
    """Return whether ``function`` exchanges data with other processes, as an operator or in Python.

    Why: as for ``is_collective``.
    """
    module = str(getattr(function, "__module__", ""))
    return is_collective(function) or module.startswith(EXCHANGES)


def is_collective(op: object) -> bool:
    """Return whether ``op`` exchanges data with other processes, or waits for such an exchange.

    Why: these operators have no public names.
    """
    return getattr(op, "namespace", "") in NAMESPACES


def is_dtensor(value: object) -> bool:
    """Return whether ``value`` is a DTensor: a tensor that several processes share.

    Why: there is no DTensor unless its package is imported, and importing it takes time.
    """
    package = sys.modules.get("torch.distributed.tensor")
    return package is not None and isinstance(value, package.DTensor)


def local_part(tensor: Any) -> Tensor:
    """Return the part of a DTensor that this process holds: the same object each time.

    Why: ``to_local`` returns a new tensor each time, and captures identify tensors by identity.
    """
    return tensor._local_tensor


def dtensor_from(local: Tensor, like: Any) -> Tensor:
    """Return a DTensor like ``like``, with ``local`` as the part of this process.

    Why: ``from_local`` takes the shape of the whole from ``local`` and adds operations to a trace.
    """
    return type(like)(local, like._spec, requires_grad=False)


@contextlib.contextmanager
def dtensors_as_operators() -> Iterator[None]:
    """Traces operations on DTensors as the operations and collectives that they consist of.

    Why: torch.export records the construction of a DTensor as a call that no graph can hold, and
    records an operator before a DTensor can replace it.
    """
    from torch._export import wrappers

    any_wrappers: Any = wrappers
    before = any_wrappers._maybe_find_pre_dispatch_tf_mode_for_export
    any_wrappers._maybe_find_pre_dispatch_tf_mode_for_export = lambda: None
    try:
        with Desugared():
            yield
    finally:
        any_wrappers._maybe_find_pre_dispatch_tf_mode_for_export = before


class Desugared(TorchFunctionMode):
    """Runs functions of DTensors without the tracer, and the operators on their parts with it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if not any(map(is_dtensor, tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        included = torch._C._dispatch_tls_local_include_set()
        excluded = torch._C._dispatch_tls_local_exclude_set()
        tracer = torch._C.DispatchKey.PreDispatch
        untraced = torch._C._ForceDispatchKeyGuard(included.remove(tracer), excluded.add(tracer))
        with untraced, OnParts(included, excluded):
            return func(*args, **kwargs)


class OnParts(TorchDispatchMode):
    """Traces operators on plain tensors again; those on DTensors reach the DTensor itself."""

    def __init__(self, included: Any, excluded: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._keys = included, excluded

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if any(map(is_dtensor, tree_leaves((args, kwargs)))):
            return NotImplemented
        with torch._C._ForceDispatchKeyGuard(*self._keys):
            return func(*args, **kwargs)


def greatest_of(numbers: Sequence[int], groups: Sequence[str], device: torch.device) -> list[int]:
    """Return the greatest value of each number on all processes of these groups.

    Processes outside of one group may be in another: the groups are asked one after the other.

    Args:
        numbers: The numbers of this process. Other processes pass as many.
        groups: The names of process groups, as graphs contain them.
        device: The device of the model. It is not waited for if a group can use the CPU.

    Why: a graph names its process groups, and only a private function finds a group by its name.
    """
    import torch.distributed as dist

    resolve: Any = torch._C._distributed_c10d._resolve_process_group
    for name in groups:
        group: Any = resolve(name)
        on_cpu = "cpu" in {place.type for place in group._device_types}
        found = torch.tensor(numbers, device="cpu" if on_cpu else device)
        dist.all_reduce(found, dist.ReduceOp.MAX, group)
        numbers = found.tolist()
    return list(numbers)
