"""Calls that torch.export gets wrong, as calls that it gets right, bit for bit the same."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fxcache.capture.foreign_memory import ForeignMemory


class UntraceableError(RuntimeError):
    """The model does what no graph can express; export() makes it a CaptureError."""


class Replacements(TorchFunctionMode):
    """Replaces the calls of ``REPLACEMENTS`` while a model is traced.

    Enter it inside the trace: it then sees a call before torch.export does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.foreign_memory = ForeignMemory()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if torch.compiler.is_dynamo_compiling():  # as in flex_attention: Dynamo traces this method
            return func(*args, **(kwargs or {}))
        self.foreign_memory.observe()
        return REPLACEMENTS.get(func, func)(*args, **(kwargs or {}))


def fill_diagonal(tensor: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """``Tensor.fill_diagonal_``, which is made of ``as_strided``, by way of ``diagonal``.

    Functionalisation follows writes through any chain of views but those of ``as_strided``.
    """
    square = len(set(tensor.shape)) == 1
    tall = tensor.dim() == 2 and tensor.shape[0] > tensor.shape[1] + 1
    if tensor.dim() < 2 or (tensor.dim() > 2 and not square):
        return tensor.fill_diagonal_(fill_value, wrap)  # raises its own error
    if not (wrap and tall):
        fill_one_diagonal(tensor, fill_value)
    elif tensor.is_contiguous() and tensor.storage_offset() == 0:
        period = tensor.shape[1] + 1
        for start in range(0, tensor.shape[0], period):
            fill_one_diagonal(tensor[start : start + period - 1], fill_value)
    else:
        raise UntraceableError("fill_diagonal_(wrap=True) writes outside of a view of a tensor")
    return tensor


def fill_one_diagonal(tensor: Tensor, fill_value: Any) -> None:
    """Fill the elements of ``tensor`` whose indices are all equal."""
    diagonal = tensor
    while diagonal.dim() > 1:
        diagonal = diagonal.diagonal(0, 0, diagonal.dim() - 1)
    diagonal.fill_(fill_value)


def as_strided(
    input: Tensor,  # noqa: A002
    size: Sequence[int],
    stride: Sequence[int],
    storage_offset: int | None = None,
) -> Tensor:
    """``torch.as_strided`` of the tensor that ``input`` is a view of: the same memory.

    Functionalisation follows writes through ``as_strided`` where it is the first view.
    """
    base = input._base
    if base is None or base.dtype != input.dtype:
        return torch.as_strided(input, size, stride, storage_offset)
    offset = input.storage_offset() if storage_offset is None else storage_offset
    return torch.as_strided(base, size, stride, offset)


def assign_data(_tensor: Tensor, _value: Tensor) -> None:
    """``tensor.data = value``: the trace would go on with the old value."""
    raise UntraceableError("it assigns to the .data of a tensor, which no graph can express")


REPLACEMENTS: dict[Callable[..., Any], Callable[..., Any]] = {
    Tensor.fill_diagonal_: fill_diagonal,
    torch.as_strided: as_strided,
    Tensor.as_strided: as_strided,
    # What .data returns is not recorded; detach() shares the same memory, and is.
    Tensor.data.__get__: lambda tensor, *_: tensor.detach(),  # type: ignore[attr-defined]
    Tensor.data.__set__: assign_data,  # type: ignore[attr-defined]
}
