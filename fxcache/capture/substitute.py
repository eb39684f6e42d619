"""Replaces Python numbers by tensors while a model is exported."""

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

# Arithmetic with a Python number computes in these dtypes, or with more precision.
WIDE = frozenset({torch.float64, torch.float32, torch.int64, torch.int32})
HALF = frozenset({torch.bfloat16, torch.float16})


class Substitute(TorchFunctionMode):
    """Puts one tensor into each slot of a number trace while the model is exported."""

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
            return tensors[RESULT].clone()  # the model may write to the result
        leaves, spec = tree_flatten((args, kwargs))
        return applied(func, leaves, spec, tensors)


def applied(
    func: Callable[..., Any], leaves: list[Any], spec: TreeSpec, tensors: dict[int, Tensor]
) -> Any:
    """Call ``func`` with a tensor in place of a number, so that the result has the same bits.

    Beside a tensor with dimensions and a dtype of the same category, a 0-dim tensor does not affect
    the dtype of the result. In all other cases it must have that dtype itself.

    Args:
        func: The torch function.
        leaves: The flat arguments.
        spec: The structure of the arguments.
        tensors: The tensor, by the index of the leaf that it replaces. There is exactly one.

    Raises:
        CaptureError: No tensor can replace the number exactly.
    """
    ((leaf, tensor),) = tensors.items()
    number, name = 0 if tensor.dtype is torch.int64 else 0.0, func.__name__
    beside = 3 - leaf if name == "where" else 0  # the tensor that ``func`` combines with the number

    def call(other: Tensor, tensor: Tensor) -> Any:
        args, kwargs = tree_unflatten(put(leaves, {beside: other, leaf: tensor}), spec)
        return func(*args, **kwargs)

    other: Tensor = leaves[beside]
    if name == "fill_":
        return other.copy_(tensor)
    if name in ASSIGNMENTS:
        return call(other, tensor.reshape(1))  # torch would read the value of a 0-dim tensor
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
    """``leaves`` with the values in ``changed``, by index."""
    return [changed.get(index, leaf) for index, leaf in enumerate(leaves)]


def other_calls(name: str) -> CaptureError:
    """Return the error for a call of ``name`` that no tensor can enter in place of a number."""
    return CaptureError(
        f"the timestep is a Python number, and {name} cannot take a tensor computed from it",
        where=name,
        remedy="pass the timestep as a tensor",
    )
