"""One call of a submodule that torch.export cannot trace: the submodule and how to call it."""

import itertools
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from fxcache.errors import CaptureError, StateError
from fxcache.opaque.structure import Flat, ResultTensor

MAX_PATHS = 4  # how many submodules a message names
HANDLES = itertools.count()
CALLS: "weakref.WeakValueDictionary[int, OpaqueCall]" = weakref.WeakValueDictionary()
PUTTING_WEIGHTS = threading.RLock()


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
        settings: The attributes that it changes when it runs, each as (path of the module, name).
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
    settings: frozenset[tuple[str, str]]
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
            where="torch.ops.fxcache.call_submodule",
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
