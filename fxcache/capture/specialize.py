"""Traces models that branch on the values of masks, lengths and ids."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fxcache._torch import (
    exchanges_data,
    is_vmapped,
    no_dispatch_modes,
    same_memory,
    tree_flatten,
    tree_map_only,
)
from fxcache.capture.randomness import random_states, set_random_states

# Functions that turn a tensor into Python numbers or NumPy arrays.
READS = frozenset[Callable[..., Any]](
    {
        Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__,
        Tensor.__complex__, Tensor.__index__, Tensor.__contains__, Tensor.__format__,
        Tensor.is_nonzero, torch.is_nonzero,
        Tensor.numpy, Tensor.__array__,
        torch.equal, Tensor.equal, torch.allclose, Tensor.allclose,
    }
)  # fmt: skip
# Functions that return an array which shares memory with the tensor.
ARRAYS = (Tensor.numpy, Tensor.__array__)
# Functions whose results may have data-dependent sizes.
INDEXING = frozenset({Tensor.__getitem__, Tensor.__setitem__})
REPEATS = frozenset({torch.repeat_interleave, Tensor.repeat_interleave})
MAX_ELEMENTS = 2**20  # larger tensors are not masks, lengths or ids


class Known(NamedTuple):
    """A traced tensor whose value is known.

    Attributes:
        traced: The tensor of the trace.
        value: Its true value, on its device.
        sources: The paths of the inputs that the value was computed from.
    """

    traced: Tensor
    value: Tensor
    sources: frozenset[str]


class Specialize(TorchFunctionMode):
    """Computes the true values of tensors that depend only on masks, lengths and ids.

    If the model turns such a tensor into a Python number, it gets the true value. The graph is
    then valid only for calls with the same values of the inputs in ``read``. The value of a tensor
    that depends on the latent, the timestep or any other input is never known.

    Attributes:
        read: The paths of the inputs whose values the model has read.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        """Start with the values of the inputs that may be read, by path."""
        super().__init__()
        self.read: set[str] = set()
        small = {path: v for path, v in values.items() if v.numel() <= MAX_ELEMENTS}
        self._values = {path: value.detach() for path, value in small.items()}
        self._known: dict[int, Known] = {}

    def learn(self, traced: Mapping[str, Tensor]) -> None:
        """Associate the tensors of the trace with the known inputs, by path."""
        with no_dispatch_modes():
            for path, value in self._values.items():
                known = Known(traced[path], value.clone(), frozenset({path}))
                self._known[id(traced[path])] = known

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_dynamo_compiling():  # Dynamo traces this method, as in flex_attention
            return func(*args, **kwargs)
        inputs = [v for v in tree_flatten((args, kwargs))[0] if isinstance(v, Tensor)]
        if exchanges_data(func):  # other processes may trace at other times
            for tensor in inputs:
                self._forget(tensor)
            return func(*args, **kwargs)
        return self._traced(func, inputs, args, kwargs)

    def _traced(
        self, func: Callable[..., Any], inputs: list[Tensor], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Return the result of a traced call, and keep its true value if that is known."""
        known = [self._known[id(t)] for t in inputs if id(t) in self._known]
        written = (kwargs.get("out"), *args[: writes_in_place(func, kwargs)])
        if len(known) < len(inputs):
            args, kwargs = self._sized(func, args, kwargs)
            result = func(*args, **kwargs)
            for tensor in written:
                self._forget(tensor)
            for entry in known:  # a later write to an alias would go unnoticed
                if isinstance(result, Tensor) and same_memory(result, entry.traced):
                    self._forget(entry.traced)
            return result
        sources = frozenset[str]().union(*(k.sources for k in known))
        if func in READS and inputs:
            value = self._computed(func, args, kwargs)
            if not isinstance(value, Unknown):
                self.read |= sources
                return value
        result = func(*args, **kwargs)
        value = Unknown() if elements(result) > MAX_ELEMENTS else self._computed(func, args, kwargs)
        for tensor in written:
            if isinstance(value, Unknown):
                self._forget(tensor)
            else:
                self._add_sources(tensor, sources)
        return self._remember(result, value, sources)

    def _computed(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Return the result of ``func`` for the true values; Unknown if it fails or is random.

        It runs on the model's device, because another device may round differently. If that is
        the meta device, it runs on the CPU.
        """
        args, kwargs = tree_map_only(Tensor, lambda t: self._known[id(t)].value, (args, kwargs))
        args, kwargs = tree_map_only(torch.device, with_values, (args, kwargs))
        if kwargs.get("device") is not None:
            kwargs["device"] = with_values(torch.device(kwargs["device"]))
        with no_dispatch_modes():
            random = random_states()
            try:
                value = func(*args, **kwargs)
            except Exception:
                return Unknown()  # the trace itself will report the error
            if not all(map(torch.equal, random_states(), random)):
                set_random_states(random)
                return Unknown()
            if func in ARRAYS:
                value.flags.writeable = False  # the graph would miss writes by NumPy
            return value

    def _sized(self, func: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments, changed so that the size of the result is known, if that is possible."""
        if func in INDEXING:
            return (args[0], self._index(args[1]), *args[2:]), kwargs
        if func in REPEATS:
            repeats = self._value(kwargs.get("repeats", args[1] if len(args) > 1 else None))
            if repeats is not None:
                with no_dispatch_modes():
                    return args, kwargs | {"output_size": int(repeats.sum())}
        return args, kwargs

    def _index(self, index: Any) -> Any:
        """``index`` with each known mask replaced by the indices of its true elements."""
        if isinstance(index, tuple):
            return tuple(part for i in index for part in (self._places(i) or (i,)))
        return self._places(index) or index

    def _places(self, mask: Any) -> tuple[Tensor, ...] | None:
        """The indices of the true elements of ``mask``; None if it is unknown or not a mask."""
        value = self._value(mask)
        if value is None or value.dtype is not torch.bool:
            return None
        with no_dispatch_modes():
            places = value.nonzero(as_tuple=True)
        return tuple(place.to(mask.device) for place in places)

    def _value(self, tensor: Any) -> Tensor | None:
        """Read the true value of ``tensor``; None if it is unknown."""
        known = self._known.get(id(tensor))
        if known is None:
            return None
        self.read |= known.sources
        return known.value

    def _remember(self, result: Any, value: Any, sources: frozenset[str]) -> Any:
        """Store the true value of ``result``, and return ``result``.

        Returns the value itself if the shape of ``result`` is data-dependent.
        """
        if isinstance(result, list | tuple) and isinstance(value, list | tuple):
            pairs = zip(result, value, strict=True)
            items = [self._remember(r, v, sources) for r, v in pairs]
            return type(result)(*items) if hasattr(result, "_fields") else type(result)(items)
        if not isinstance(result, Tensor) or not isinstance(value, Tensor):
            return result
        if is_vmapped(result) or is_vmapped(value):
            return result
        if not all(isinstance(size, int) for size in result.shape):
            self.read |= sources
            result = value.to(result.device)
        self._known[id(result)] = Known(result, value, sources)
        return result

    def _forget(self, written: Any) -> None:
        """Forget the values of all tensors that share memory with ``written``."""
        for known in self._sharing(written):
            del self._known[id(known.traced)]

    def _add_sources(self, written: Any, sources: frozenset[str]) -> None:
        """Add ``sources`` to all tensors that share memory with ``written``."""
        for known in self._sharing(written):
            self._known[id(known.traced)] = known._replace(sources=known.sources | sources)

    def _sharing(self, tensor: Any) -> list[Known]:
        """Return the known tensors that share memory with ``tensor``, including itself."""
        known = self._known.get(id(tensor))
        if known is None:
            return []
        return [k for k in self._known.values() if same_memory(k.value, known.value)]


def elements(result: Any) -> int:
    """The number of elements in all tensors of ``result``. A data-dependent size counts as 1."""
    tensors = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor)]
    sizes = ([s for s in tensor.shape if isinstance(s, int)] for tensor in tensors)
    return sum(map(math.prod, sizes))


def with_values(device: torch.device) -> torch.device:
    """``device``, or the CPU if ``device`` is meta."""
    return torch.device("cpu") if device.type == "meta" else device


class Unknown:
    """Marks a value that is not known."""


def writes_in_place(func: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether ``func`` writes to its first argument."""
    name = getattr(func, "__name__", "")
    inplace_operator = name.startswith("__i") and name.endswith("__") and name != "__index__"
    method = name.endswith("_") and not name.endswith("__")
    return name == "__setitem__" or inplace_operator or method or bool(kwargs.get("inplace"))
