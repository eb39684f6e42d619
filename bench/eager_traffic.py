"""Counts the bytes that eager operators move, on fake tensors. Nothing runs."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fxcache._torch.fake_gpu import FakeGPUCall, Kernel, gpu_pretended


def eager(called: FakeGPUCall) -> list[Kernel]:
    """Return the operators of eager mode. Each reads its inputs and writes its results."""
    counter = TrafficCounter()
    with gpu_pretended(), torch.no_grad(), called.fakes, counter:
        called.module(*called.inputs)
    return counter.kernels


class TrafficCounter(TorchDispatchMode):
    """Records the bytes that operators read and write. Views move no bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        read, written = tensors_of((args, kwargs)), tensors_of(result)
        memory = {tensor.untyped_storage()._cdata for tensor in read}
        views = any(tensor.untyped_storage()._cdata in memory for tensor in written)
        if written and not views:
            self.kernels.append(Kernel((str(func),), sum(map(size_of, (*read, *written)))))
        return result


def tensors_of(values: Any) -> list[Tensor]:
    """Return the distinct tensors in ``values``."""
    leaves = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
    return list({id(leaf): leaf for leaf in leaves}.values())


def size_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
