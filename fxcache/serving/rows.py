"""Joins the rows of several requests to one batch, and splits results by request."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fxcache.errors import ConfigError
from fxcache.rewrite.variant_signature import TensorSpec, VariantSignature

WORD = re.compile(r"\w+")


def join(parts: Sequence[Tensor], size: int) -> Tensor:
    """Concatenate along dimension 0, and repeat the last row until there are ``size`` rows."""
    missing = size - sum(len(part) for part in parts)
    expanded = 0 in parts[0].stride()  # graphs are compiled for the strides that cat returns
    if len(parts) == 1 and not missing and not expanded:
        return parts[0]
    padding = [parts[-1][-1:].expand(missing, *parts[-1].shape[1:])] if missing else []
    return torch.cat([*parts, *padding])


def join_by(spec: TensorSpec | None, parts: Sequence[Tensor], size: int) -> Tensor:
    """Join values that ``spec`` describes. A value without a batch is the same in all parts."""
    return join(parts, size) if has_rows(spec) else parts[0]


def split_by(spec: TensorSpec | None, value: object, counts: Sequence[int]) -> Iterator[object]:
    """Yield each request's part of ``value``: its rows, or all of a value without a batch."""
    start = 0
    for count in counts:
        rows = isinstance(value, Tensor) and has_rows(spec)
        yield value[start : start + count] if rows else value  # type: ignore[index]
        start += count


def has_rows(spec: TensorSpec | None) -> bool:
    """Return whether the first dimension is the batch."""
    return spec is not None and spec.batch_dim == 0


def require_rows(signature: VariantSignature, size: Any, model: str) -> None:
    """Check that a graph computes each row by itself, as far as shapes can tell.

    Args:
        signature: The graph's signature.
        size: The size of the batch: a symbol, if it may vary.
        model: The name of the model, for errors.

    Raises:
        ConfigError: A value mixes the batch with another dimension, or the batch is fixed.
    """
    batch = str(size)
    if isinstance(size, int):
        raise ConfigError(
            f"the captured graph of {model} serves batches of {batch} only",
            where="fxcache.serving.Batcher",
            remedy="optimize with CaptureConfig(dynamic=...), which names dimension 0 of each "
            "input that has a row for each picture",
        )
    specs = [(spec.name, spec.tensor) for spec in signature.inputs]
    specs += [(f"an output ({spec.sink.kind.value})", spec.tensor) for spec in signature.outputs]
    for name, tensor in specs:
        if tensor is not None and any(batch in words(size) for size in rest(tensor)):
            raise ConfigError(
                f"{name} of {model} has the shape {list(tensor.shape)}, which joins the batch "
                f"{batch} with another dimension",
                where="fxcache.serving.Batcher",
                remedy="serve this model without a Batcher",
            )


def rest(tensor: TensorSpec) -> tuple[int | str, ...]:
    """Return the sizes of all dimensions except the batch."""
    return tensor.shape[1:] if has_rows(tensor) else tensor.shape


def words(size: int | str) -> list[str]:
    """Return the names and numbers in a size, which may be an expression."""
    return WORD.findall(str(size))
