"""Exact counts of one run in eager mode: FLOPs, computed steps, waits, and bytes of tensors."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from bench.peers.subject import Ask, Live, Subject, sample

aten = torch.ops.aten
SAVES_MUCH = 0.05


def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Return the FLOPs of attention, from shapes."""
    return int(sdpa_flop_count(query, key, value))


# The CPU's attention kernel, which FlopCounterMode does not know.
ATTENTION = {aten._scaled_dot_product_flash_attention_for_cpu: attention_flops}


def computed(flops: Sequence[int]) -> list[int]:
    """Return the steps whose FLOPs are closer to the most of all steps than to the least.

    If no step saves much, all steps are computed: what is hoisted makes the first one different.
    """
    most, least = max(flops), min(flops)
    if least > (1 - SAVES_MUCH) * most:
        return list(range(len(flops)))
    return [index for index, found in enumerate(flops) if 2 * found >= most + least]


@dataclass
class Counts:
    """The counts of one run.

    Attributes:
        flops: FLOPs of each step's call, two per multiply-add.
        waits: How often a number was read from a tensor. On a GPU the host waits each time.
        operators: The number of operators that were called.
        peak_bytes: The most bytes of tensors that calls made, at any time.
        cached_bytes: The most bytes of these tensors that are alive between two steps.
    """

    flops: list[int] = field(default_factory=list)
    waits: int = 0
    operators: int = 0
    peak_bytes: int = 0
    cached_bytes: int = 0

    @property
    def refreshed(self) -> list[int]:
        """The steps that computed the model, as their FLOPs tell."""
        return computed(self.flops)

    @property
    def total_flops(self) -> int:
        return sum(self.flops)


class Tensors(TorchDispatchMode):
    """Counts operators and waits, and follows the bytes of all tensors that operators make."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = Counts()
        self.alive_bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.counts.operators += 1
        self.counts.waits += func is aten._local_scalar_dense.default
        for value in tree_iter(result):
            if isinstance(value, Tensor) and not isinstance(value, torch.nn.Parameter):
                self._follow(value, args)
        return result

    def _follow(self, value: Tensor, args: Any) -> None:
        storage = value.untyped_storage()
        key = storage._cdata
        inputs = (a for a in tree_iter(args) if isinstance(a, Tensor))
        if key in self._known or any(a.untyped_storage()._cdata == key for a in inputs):
            return  # a view, or written in place
        size = storage.nbytes()
        self._known.add(key)
        self.alive_bytes += size
        self.counts.peak_bytes = max(self.counts.peak_bytes, self.alive_bytes)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive_bytes -= size


class Lists(TorchFunctionMode):
    """Counts the tensors that become lists, which no operator of the dispatcher does on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.read += func is Tensor.tolist
        return func(*args, **(kwargs or {}))


@contextmanager
def flop_counter() -> Iterator[Callable[[], int]]:
    """Count FLOPs inside the block. Yield a function that returns them."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        yield counter.get_total_flops


def flops_of(subject: Subject, live: Live, ask: Ask) -> list[int]:
    """Make one run, and return the FLOPs of each step's call."""
    found: list[int] = []

    def watch(call: Callable[[], Tensor]) -> Tensor:
        with flop_counter() as flops:
            predicted = call()
        found.append(flops())
        return predicted

    sample(subject, live, ask, watch)
    return found


def counted(subject: Subject, live: Live, ask: Ask) -> tuple[Counts, Tensor]:
    """Make one run, and count. Return the final latent as well."""
    mode, lists = Tensors(), Lists()

    def watch(call: Callable[[], Tensor]) -> Tensor:
        # The last prediction is gone, and the next call has made nothing yet.
        mode.counts.cached_bytes = max(mode.counts.cached_bytes, mode.alive_bytes)
        with flop_counter() as flops, mode, lists:
            predicted = call()
        mode.counts.flops.append(flops())
        return predicted

    latent = sample(subject, live, ask, watch)
    mode.counts.waits += lists.read
    return mode.counts, latent
