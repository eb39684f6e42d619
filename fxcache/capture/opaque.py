"""Puts calls of submodules that torch.export cannot trace into the graph."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import hint_of
from fxcache.capture.attributes import attributes_of, same_attributes
from fxcache.capture.choice import Choice
from fxcache.capture.loading import TracedHook
from fxcache.capture.probe import CallRecord, Kind, Probe, forwards
from fxcache.capture.weight_hooks import ACCELERATE_HOOK, hooks_that_load, own_tensors
from fxcache.errors import CaptureError
from fxcache.opaque import Flat, OpaqueCall, ResultTensor, Size, Weight, operator

PLAIN_TENSORS = (Tensor, nn.Parameter)  # subclasses need not accept the operator


class OpaqueError(RuntimeError):
    """A graph cannot call a submodule as it is. It may be able to call one around it."""


class OpaqueSubmodules:
    """The submodules that are called as they are, in the traces of one attempt.

    Args:
        choice: The submodules.
        probe: What their calls did when the model ran without a trace.
    """

    def __init__(self, choice: Choice, probe: Probe) -> None:
        self._failures, self._paths = choice.failures, choice.paths
        self._probe = probe
        # During a trace, weights are fake tensors.
        self._weights = {module: tuple(weights_of(module)) for module in self._failures}
        self._made: dict[tuple[nn.Module, int], OpaqueCall] = {}
        self._counts: Counter[nn.Module] = Counter()
        self._attributes: dict[nn.Module, list[dict[str, Any]]] = {}

    @property
    def calls(self) -> tuple[OpaqueCall, ...]:
        """All calls in the traces so far."""
        return tuple(self._made.values())

    def replaced(self) -> AbstractContextManager[None]:
        """Return a context in which traces contain calls of the submodules."""
        return forwards({module: self._around(module) for module in self._failures})

    def begin(self) -> None:
        """Begin a trace."""
        self._counts.clear()
        self._attributes = {module: attributes_of(module) for module in self._failures}

    def _around(self, module: nn.Module) -> Callable[..., Any]:
        """Return the forward of ``module`` that traces see."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            structure, tensors = Flat.of((args, kwargs))
            call = self._call(module, structure, tensors)
            weights = [own_tensors(weight.owner)[weight.name] for weight in call.weights]
            return call.result.with_tensors(operator()(call.handle, tensors, weights))

        return forward

    def _call(self, module: nn.Module, structure: Flat, tensors: Sequence[Tensor]) -> OpaqueCall:
        """Return the call that the trace has reached. Each trace of an attempt has the same."""
        index = self._counts[module]
        self._counts[module] += 1
        records = self._probe.records.get(id(module), ())
        if index >= len(records):
            raise OpaqueError("it is called more often than without a trace")
        record = records[index]
        if record.problem:
            raise OpaqueError(record.problem)
        if not all(map(same_attributes, self._attributes[module], attributes_of(module))):
            raise OpaqueError("its caller hands values over in its attributes")
        require_same_call(record, structure, tensors, self._paths[module])
        if (module, index) not in self._made:
            results = [result_tensor(k, tensors, self._paths[module]) for k in record.outputs]
            self._made[module, index] = OpaqueCall(
                module,
                self._paths[module],
                *self._failures[module],
                structure,
                record.result,
                tuple(results),
                self._weights[module],
                self._settings(module),
                record.flops,
            )
        return self._made[module, index]

    def _settings(self, module: nn.Module) -> frozenset[tuple[str, str]]:
        """Return the attributes that the calls of ``module`` change."""
        inside = [(m, self._probe.changed.get(m, ())) for m in module.modules()]
        return frozenset((self._paths[m], name) for m, names in inside for name in names)


def weights_of(module: nn.Module) -> Iterator[Weight]:
    """Yield the weights of ``module``, each once."""
    loaded = {
        (id(weight.owner), weight.name)
        for submodule in module.modules()
        for weight in loaded_by_hooks(submodule)
    }
    known: set[int] = set()
    for owner in module.modules():
        for name, tensor in own_tensors(owner).items():
            if type(tensor) in PLAIN_TENSORS and id(tensor) not in known:
                known.add(id(tensor))
                yield Weight(owner, name, (id(owner), name) not in loaded)


def loaded_by_hooks(module: nn.Module) -> Iterator[Any]:
    """Yield the weights that hooks of ``module`` itself load, also while it is traced."""
    hook = vars(module).get(ACCELERATE_HOOK)
    if isinstance(hook, TracedHook):
        yield from hook.weights
    for weights in hooks_that_load(module).values():
        yield from weights


def require_same_call(
    record: CallRecord, structure: Flat, tensors: Sequence[Tensor], path: str
) -> None:
    """Raise OpaqueError unless the trace makes the recorded call.

    Raises:
        CaptureError: An argument is a size that may vary.
    """
    if any(isinstance(leaf, torch.SymInt) for leaf in structure.leaves):
        raise sizes_refused(path, "gets a size as an argument")
    if not structure.agrees(record.arguments):
        raise OpaqueError("it gets other arguments than without a trace")
    for tensor, kind in zip(tensors, record.inputs, strict=True):
        if sizes(tensor) != kind.shape or tensor.dtype != kind.dtype:
            raise OpaqueError("it gets tensors of other shapes or dtypes than without a trace")


def sizes(tensor: Tensor) -> torch.Size | None:
    """Return the sizes of a traced tensor at capture; None if one of them depends on data."""
    known = [hint_of(size) for size in tensor.shape]
    return None if None in known else torch.Size(known)  # type: ignore[arg-type]


def result_tensor(kind: Kind, tensors: Sequence[Tensor], path: str) -> ResultTensor:
    """Describe a result of a submodule that was called with the traced ``tensors``.

    If sizes may vary, those of the result are assumed to follow those of an argument.
    """
    order = sorted(range(len(kind.shape)), key=lambda dim: -kind.stride[dim])
    shape: tuple[Size, ...] = tuple(kind.shape)
    if any(not isinstance(size, int) for tensor in tensors for size in tensor.shape):
        followed = next(filter(None, (following(kind, i, t) for i, t in enumerate(tensors))), None)
        if followed is None or not is_dense(kind, order):
            raise sizes_refused(path, f"returns a tensor {list(kind.shape)} like no argument")
        shape = followed
    return ResultTensor(shape, kind.stride, tuple(order), kind.dtype, kind.device)


def following(kind: Kind, index: int, tensor: Tensor) -> tuple[Size, ...] | None:
    """Return the sizes of a result that follow those of one argument; None if they do not.

    Only the last one may differ, as that of a linear layer does, and then it is fixed.
    """
    known = sizes(tensor)
    if known is None or len(known) != len(kind.shape) or known[:-1] != kind.shape[:-1]:
        return None
    traced: list[Any] = list(tensor.shape)
    same_last = known[-1:] == kind.shape[-1:]
    if not same_last and not isinstance(traced[-1], int):
        return None
    found = [size if isinstance(size, int) else (index, dim) for dim, size in enumerate(traced)]
    return tuple(found) if same_last else (*found[:-1], kind.shape[-1])


def is_dense(kind: Kind, order: Sequence[int]) -> bool:
    """Return whether a tensor has no gaps and no overlaps in memory, in this order."""
    step = 1
    for dim in reversed(order):
        if kind.shape[dim] != 1 and kind.stride[dim] != step:
            return False
        step *= kind.shape[dim]
    return True


def sizes_refused(path: str, why: str) -> CaptureError:
    return CaptureError(
        f"sizes cannot vary, because torch.export cannot trace the submodule {path}, which {why}",
        where=path,
        remedy="leave out CaptureConfig(dynamic=...): each shape then has a capture of its own",
    )
