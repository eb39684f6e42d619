"""Replaces calls that torch.export traces wrongly by equivalent calls, bitwise equal."""

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fxcache._torch import FakeAttention, attention_backends, attention_operator
from fxcache.capture.foreign_memory import ForeignMemory
from fxcache.capture.values import Values


class UntraceableError(RuntimeError):
    """The model does something that no graph can express. ``export`` makes it a CaptureError.

    Args:
        what: What the model does.
        remedy: A remedy; empty for a general one.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        self.remedy = remedy
        super().__init__(what)


class Replacements(TorchFunctionMode):
    """Replaces the calls in ``REPLACEMENTS`` during a trace.

    It must be entered inside the trace, so that it sees each call before torch.export does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.foreign_memory = ForeignMemory()
        self._backends = attention_backends()  # of the caller: a capture is for that choice
        FakeAttention.use()
        self._values = Values()

    def __exit__(self, *error: Any) -> None:
        """Leave the mode, and put back the values of tensors of the model."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._values.put_back()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if torch.compiler.is_dynamo_compiling():  # Dynamo traces this method, as in flex_attention
            return func(*args, **(kwargs or {}))
        if kwargs and isinstance(kwargs.get("generator"), torch.Generator):
            raise UntraceableError(
                "it draws random numbers with a generator of its own, which no graph holds",
                "draw with torch's default generator, or pass the numbers as an input",
            )
        self.foreign_memory.observe()
        self._values.keep((*args, *(kwargs or {}).values()))
        if func in CHOOSING:
            FakeAttention.use()
            func = func if attention_backends() == self._backends else CHOOSING[func]
        return REPLACEMENTS.get(func, func)(*args, **(kwargs or {}))


def attention(*args: Any, **kwargs: Any) -> Any:
    """Attention by the implementations that the model chooses for this call."""
    return attention_operator()(*args, **kwargs, backends=attention_backends())


def calling_attention(function: Any) -> Callable[..., Any]:
    """Return ``function`` of torch.nn.functional, with ``attention`` in place of torch's.

    A mode does not see what a function calls that it was asked about. The function asks no further
    mode, which would run the original.
    """
    own = {"scaled_dot_product_attention": attention, "has_torch_function": lambda _: False}
    names = {**function.__globals__, **own}
    return FunctionType(function.__code__, names, argdefs=function.__defaults__)


# What calls attention, by what makes the choice of the model around it.
CHOOSING: dict[Callable[..., Any], Callable[..., Any]] = {
    F.scaled_dot_product_attention: attention,
    F.multi_head_attention_forward: calling_attention(F.multi_head_attention_forward),
}


def fill_diagonal(tensor: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """``Tensor.fill_diagonal_``, implemented with ``diagonal`` instead of ``as_strided``.

    Functionalisation follows writes through chains of all views except ``as_strided``.
    """
    square = len(set(tensor.shape)) == 1
    tall = tensor.dim() == 2 and tensor.shape[0] > tensor.shape[1] + 1
    if tensor.dim() < 2 or (tensor.dim() > 2 and not square):
        return tensor.fill_diagonal_(fill_value, wrap)  # raises torch's own error
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
    """``torch.as_strided``, applied to the base tensor of ``input``, which has the same memory.

    Functionalisation follows writes through ``as_strided`` only if it is the first view.
    """
    base = input._base
    if base is None or base.dtype != input.dtype:
        return torch.as_strided(input, size, stride, storage_offset)
    offset = input.storage_offset() if storage_offset is None else storage_offset
    return torch.as_strided(base, size, stride, offset)


def assign_data(_tensor: Tensor, _value: Tensor) -> None:
    """Refuse ``tensor.data = value``: the trace would continue with the old value."""
    raise UntraceableError(
        "it assigns to the .data of a tensor, which no graph can express",
        "call the model once without fxcache, if it converts its weights at the first call, as the "
        "4-bit layers of bitsandbytes do; its 8-bit layers assign at each call: quantise to 4 bits "
        "instead, or with torchao, if those layers are to be compiled",
    )


REPLACEMENTS: dict[Callable[..., Any], Callable[..., Any]] = {
    Tensor.fill_diagonal_: fill_diagonal,
    torch.as_strided: as_strided,
    Tensor.as_strided: as_strided,
    # A trace does not record .data. detach() shares the same memory and is recorded.
    Tensor.data.__get__: lambda tensor, *_: tensor.detach(),  # type: ignore[attr-defined]
    Tensor.data.__set__: assign_data,  # type: ignore[attr-defined]
}
