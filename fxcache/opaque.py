"""Submodules that torch.export cannot trace: an operator in the graph calls each as it is."""

import itertools
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from fxcache._torch import (
    TreeSpec,
    below_autograd,
    is_being_traced,
    tree_flatten,
    tree_unflatten,
)
from fxcache.errors import CaptureError, StateError

NAME = "call_submodule"
SCHEMA = f"{NAME}(int handle, Tensor[] tensors, Tensor[] weights) -> Tensor[]"
# A size is an int, or that of a dimension of an argument: (index of the tensor, dimension).
Size = int | tuple[int, int]

MAX_PATHS = 4  # how many submodules a message names

HANDLES = itertools.count()
CALLS: "weakref.WeakValueDictionary[int, OpaqueCall]" = weakref.WeakValueDictionary()
PUTTING_WEIGHTS = threading.RLock()
LIBRARIES: list[torch.library.Library] = []  # an operator lives as long as its library


class TensorIn:
    """Marks the place of a tensor in a ``Flat``."""

    def __repr__(self) -> str:
        return "tensor"


TENSOR = TensorIn()


class Flat(NamedTuple):
    """The structure of some values: everything but the tensors.

    Attributes:
        leaves: The flat values, with ``TENSOR`` in the place of each tensor.
        spec: Their structure.
    """

    leaves: tuple[Any, ...]
    spec: TreeSpec

    @classmethod
    def of(cls, values: Any) -> "tuple[Flat, list[Tensor]]":
        """Return the structure of ``values``, and the tensors in them."""
        leaves, spec = tree_flatten(values)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        return cls(tuple(TENSOR if isinstance(v, Tensor) else v for v in leaves), spec), tensors

    def with_tensors(self, tensors: Sequence[Tensor]) -> Any:
        """Return the values with these tensors."""
        remaining = iter(tensors)
        leaves = [next(remaining) if leaf is TENSOR else leaf for leaf in self.leaves]
        return tree_unflatten(leaves, self.spec)

    def agrees(self, other: "Flat") -> bool:
        """Return whether both have the same structure and the same values beside tensors."""
        pairs = zip(self.leaves, other.leaves, strict=False)
        return self.spec == other.spec and all(
            type(first) is type(second) and (first is second or first == second)
            for first, second in pairs
        )


@dataclass(frozen=True)
class ResultTensor:
    """A tensor that a submodule returns.

    Attributes:
        shape: Its sizes.
        stride: Its strides at capture.
        order: Its dimensions from the outermost in memory to the innermost.
        dtype: Its dtype.
        device: Its device.
    """

    shape: tuple[Size, ...]
    stride: tuple[int, ...]
    order: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def varies(self) -> bool:
        """Whether a size follows an argument's."""
        return not all(isinstance(size, int) for size in self.shape)

    def empty(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return an uninitialised tensor for a call with the arguments ``tensors``."""
        like: Any = {"dtype": self.dtype, "device": self.device}
        if not self.varies:
            fixed: Any = self.shape
            return torch.empty_strided(fixed, self.stride, **like)
        shape: Any = [
            size if isinstance(size, int) else tensors[size[0]].shape[size[1]]
            for size in self.shape
        ]
        return torch.empty_permuted(shape, self.order, **like)


class Weight(NamedTuple):
    """A weight of an opaque submodule.

    Attributes:
        owner: The module that has the weight.
        name: Its name there.
        passed: Whether the submodule computes with the tensor that the graph passes, which may be a
            copy on another device. Otherwise a hook inside the submodule loads the weight.
    """

    owner: nn.Module
    name: str
    passed: bool

    @property
    def registry(self) -> dict[str, Any]:
        """The parameters or the buffers of the owner."""
        registry: Any = self.owner._parameters
        return registry if self.name in registry else self.owner._buffers


@dataclass(frozen=True, eq=False)
class OpaqueCall:
    """One call of a submodule in a captured graph.

    The program that the graph belongs to owns it. The operator finds it by its handle, which is
    used once in a process.

    Attributes:
        module: The submodule.
        path: Its path in the model.
        reason: Why it could not be traced.
        where: The source line that was responsible.
        arguments: The structure of its arguments, ``(args, kwargs)``.
        result: The structure of its result.
        tensors: The tensors in the result.
        weights: Its weights, which the graph passes too, so that all that is known about the
            weights of a graph holds for them.
        flops: The FLOPs of the call by kind, measured when it was captured.
        handle: A number that identifies the call in graphs.
    """

    module: nn.Module
    path: str
    reason: str
    where: str
    arguments: Flat
    result: Flat
    tensors: tuple[ResultTensor, ...]
    weights: tuple[Weight, ...]
    flops: Mapping[str, int]
    handle: int = field(default_factory=lambda: next(HANDLES))

    def __post_init__(self) -> None:
        CALLS[self.handle] = self

    def run(self, tensors: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
        """Call the submodule.

        The results are copies: the submodule may return an argument, or a tensor that it keeps and
        writes to later, and the caller may keep them in a cache.
        """
        args, kwargs = self.arguments.with_tensors(tensors)
        with self._loaded(weights):
            result = self.module.forward(*args, **kwargs)
        structure, found = Flat.of(result)
        if not structure.agrees(self.result):
            raise self._differs("another structure")
        return [self._copy(*pair, tensors) for pair in zip(found, self.tensors, strict=True)]

    def _copy(self, found: Tensor, expected: ResultTensor, tensors: Sequence[Tensor]) -> Tensor:
        """Return a copy of ``found`` with the strides that the graph expects."""
        copy = expected.empty(tensors)
        if found.shape != copy.shape or found.dtype != copy.dtype or found.device != copy.device:
            raise self._differs(f"a tensor {list(found.shape)} {found.dtype} on {found.device}")
        # Expanded dimensions have stride 0, and are written once.
        once = tuple(slice(0, 1 if step == 0 else None) for step in copy.stride())
        if found.requires_grad:
            return found.clone()
        copy[once].copy_(found[once])
        return copy

    def _differs(self, how: str) -> CaptureError:
        return CaptureError(
            f"the submodule {self.path} returns {how}, unlike when it was captured",
            where=self.where,
            remedy="let the kinds of its results depend on the shapes of its arguments alone",
        )

    @contextmanager
    def _loaded(self, weights: Sequence[Tensor]) -> Iterator[None]:
        """Lets the submodule compute with ``weights`` where they are not its own tensors."""
        pairs = zip(self.weights, weights, strict=True)
        other = [(w, t) for w, t in pairs if w.passed and not same_tensor(w.registry[w.name], t)]
        if not other:
            yield
            return
        with PUTTING_WEIGHTS:
            before = [weight.registry[weight.name] for weight, _ in other]
            try:
                for weight, tensor in other:
                    weight.registry[weight.name] = tensor
                yield
            finally:
                for (weight, _), tensor in zip(other, before, strict=True):
                    weight.registry[weight.name] = tensor


def same_tensor(first: Tensor | None, second: Tensor) -> bool:
    """Return whether both are one tensor, or two names of the same memory."""
    return first is second or (
        first is not None
        and first.device == second.device
        and first.dtype == second.dtype
        and first.shape == second.shape
        and first.data_ptr() == second.data_ptr() != 0
    )


def registered(handle: int) -> OpaqueCall:
    """Return the call with this handle.

    Raises:
        StateError: The program that it belongs to is gone.
    """
    call = CALLS.get(handle)
    if call is None:
        raise StateError(
            f"a graph calls submodule number {handle}, and the model that had it is gone",
            where=f"torch.ops.fxcache.{NAME}",
            remedy="keep the optimized model as long as its graphs, and save no graph of it",
        )
    return call


def described(calls: Sequence[OpaqueCall]) -> list[str]:
    """Describe the submodules that ``calls`` call, one line for each reason."""
    paths: dict[tuple[str, str, str], dict[str, None]] = {}
    for call in calls:
        key = (type(call.module).__name__, call.reason, call.where)
        paths.setdefault(key, {})[call.path] = None
    return [
        f"{len(found)} × {kind} ({', '.join(list(found)[:MAX_PATHS])}"
        f"{', …' if len(found) > MAX_PATHS else ''}): {reason} at {where}"
        for (kind, reason, where), found in paths.items()
    ]


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
