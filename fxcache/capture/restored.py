"""Undoes what a call of a model does to generators of random numbers, weights and buffers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from fxcache._torch import bare, is_wrapper, same_memory, without_overrides
from fxcache.capture.effects import WEIGHTS, all_tensors_in
from fxcache.capture.foreign_memory import same_bits
from fxcache.capture.randomness import GeneratorStates
from fxcache.capture.values import is_real

MAX_RESTORED = 2**20  # larger tensors hold no state that a model writes in its calls


@contextmanager
def generators_restored(devices: Sequence[torch.device]) -> Iterator[None]:
    """Restores the generators of random numbers of torch, Python and NumPy."""
    others = GeneratorStates()
    gpus = sorted({device.index for device in devices if device.type == "cuda"})
    with torch.random.fork_rng(gpus):
        try:
            yield
        finally:
            others.put_back()


@contextmanager
def values_restored(module: nn.Module) -> Iterator[None]:
    """Restores the values of small tensors of the module, also if ``.data`` was written to."""
    tensors = chain(weights_and_buffers(module), plain_tensors(module))
    small = (bare(t) for t in tensors if t.numel() <= MAX_RESTORED)
    kept = [(tensor, tensor.clone()) for tensor in small]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in kept:
                if not same_bits(tensor, value):
                    tensor.copy_(value)


@contextmanager
def memory_restored(module: nn.Module) -> Iterator[None]:
    """Restores the memory of weights and buffers to which the model assigns ``.data``.

    4-bit layers of bitsandbytes pack their weights so at their first call, and note it in an
    attribute. That is restored too, so without this the next call would pack the weights again.
    """
    kept = [(tensor, bare(tensor)) for tensor in weights_and_buffers(module)]
    try:
        yield
    finally:
        with without_overrides():
            for tensor, before in kept:
                if not (same_memory(tensor, before) and layout(tensor) == layout(before)):
                    tensor.data = before


def weights_and_buffers(module: nn.Module) -> Iterator[Tensor]:
    """Yield the weights and buffers that have memory of their own."""
    tensors = chain(module.parameters(), module.buffers())
    return (tensor for tensor in tensors if not is_wrapper(tensor))


def plain_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors in plain attributes, and in containers and objects there."""
    for submodule in module.modules():
        for name, value in vars(submodule).items():
            if name not in WEIGHTS:
                yield from filter(is_real, all_tensors_in(value))


def layout(tensor: Tensor) -> tuple[object, ...]:
    """Return how ``tensor`` lies in its memory."""
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype
