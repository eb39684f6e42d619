"""Putting tensors in the place of numbers, while a model is exported."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fxcache._torch import TreeSpec, tree_flatten, tree_unflatten
from fxcache.capture.numbers import ARITHMETIC, ASSIGNMENTS, RESULT, NumberTrace
from fxcache.capture.specialize import writes_in_place
from fxcache.errors import CaptureError

# Scalars of arithmetic are computed with as these, or more precisely.
WIDE = frozenset({torch.float64, torch.float32, torch.int64, torch.int32})
HALF = frozenset({torch.bfloat16, torch.float16})


class Substitute(TorchFunctionMode):
    """Puts tensors in the slots, while the model is exported."""

    def __init__(self, trace: NumberTrace, tensors: Sequence[Tensor]):
        super().__init__()
        self._entries = trace.entries
        self._next = 0
        self._tensors: dict[int, dict[int, Tensor]] = defaultdict(dict)
        for slot, tensor in zip(trace.slots, tensors, strict=True):
            self._tensors[slot.call][slot.leaf] = tensor

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs, call = kwargs or {}, self._next
        self._next += 1
        if call >= len(self._entries) or func != self._entries[call].func:
            raise other_calls(getattr(func, "__name__", str(func)))
        tensors = self._tensors.get(call)
        if tensors is None:
            return func(*args, **kwargs)
        if RESULT in tensors:
            return tensors[RESULT].clone()  # which the model may write to
        leaves, spec = tree_flatten((args, kwargs))
        return applied(func, leaves, spec, tensors)


def applied(
    func: Callable[..., Any], leaves: list[Any], spec: TreeSpec, tensors: dict[int, Tensor]
) -> Any:
    """``func`` with ``tensors`` at the leaves of these numbers: the bits of the number's result.

    A 0-dim tensor decides no dtype beside a tensor that has dimensions and is of its kind; else it
    must have the dtype of the result.
    """
    ((leaf, tensor),) = tensors.items()
    number, name = 0 if tensor.dtype is torch.int64 else 0.0, func.__name__
    beside = 3 - leaf if name == "where" else 0  # the tensor that the number meets

    def call(other: Tensor, tensor: Tensor) -> Any:
        args, kwargs = tree_unflatten(put(leaves, {beside: other, leaf: tensor}), spec)
        return func(*args, **kwargs)

    other: Tensor = leaves[beside]
    if name == "fill_":
        return other.copy_(tensor)
    if name in ASSIGNMENTS:
        return call(other, tensor.reshape(1))  # the value of a 0-dim tensor is asked for
    dtype = torch.result_type(other, number)
    if other.dim() and dtype == other.dtype:
        return call(other, tensor)
    if dtype in WIDE:
        return call(other, tensor.to(dtype))
    if (
        dtype in HALF
        and dtype == other.dtype
        and name in ARITHMETIC
        and not writes_in_place(func, {})
    ):
        return call(other.reshape(1), tensor).reshape(())
    raise other_calls(name)


def put(leaves: list[Any], changed: Mapping[int, Any]) -> list[Any]:
    """``leaves`` with those of these numbers changed."""
    return [changed.get(index, leaf) for index, leaf in enumerate(leaves)]


def other_calls(name: str) -> CaptureError:
    return CaptureError(
        f"the timestep is a Python number, and {name} cannot take what is computed from it",
        where=name,
        remedy="pass the timestep as a tensor",
    )
