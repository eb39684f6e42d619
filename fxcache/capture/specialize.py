"""Tracing models that branch on values: on those of masks, lengths and ids, which a run keeps."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fxcache._torch import is_vmapped, no_dispatch_modes, same_memory, tree_flatten, tree_map_only

# What turns a tensor into Python's own numbers, or into NumPy's arrays.
READS = frozenset[Callable[..., Any]](
    {
        Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__,
        Tensor.__complex__, Tensor.__index__, Tensor.__contains__, Tensor.__format__,
        Tensor.is_nonzero, torch.is_nonzero,
        Tensor.numpy, Tensor.__array__,
        torch.equal, Tensor.equal, torch.allclose, Tensor.allclose,
    }
)  # fmt: skip
# What shares the tensor's memory with NumPy.
ARRAYS = (Tensor.numpy, Tensor.__array__)
# Whose results have sizes that depend on values.
INDEXING = frozenset({Tensor.__getitem__, Tensor.__setitem__})
REPEATS = frozenset({torch.repeat_interleave, Tensor.repeat_interleave})
MAX_ELEMENTS = 2**20  # masks, lengths and ids are smaller


class Known(NamedTuple):
    """The true value of a traced tensor, on its device, and the inputs it was computed from."""

    traced: Tensor
    value: Tensor
    sources: frozenset[str]


class Specialize(TorchFunctionMode):
    """Computes, beside the trace, what follows from the call's masks, lengths and ids alone.

    Where the model turns such a value into a Python number, it gets the true one, and ``read``
    takes note of the inputs that it came from: the graph is right for calls that have the same
    values there. What depends on the latent, the timestep or any other input is never known.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        """``values``: the inputs to be known, by path."""
        super().__init__()
        self.read: set[str] = set()
        small = {path: v for path, v in values.items() if v.numel() <= MAX_ELEMENTS}
        self._values = {path: value.detach() for path, value in small.items()}
        self._known: dict[int, Known] = {}

    def learn(self, traced: Mapping[str, Tensor]) -> None:
        """Tell which of the trace's tensors the inputs are, by path."""
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
        if torch.compiler.is_dynamo_compiling():  # as in flex_attention: Dynamo traces this method
            return func(*args, **kwargs)
        given = [v for v in tree_flatten((args, kwargs))[0] if isinstance(v, Tensor)]
        known = [self._known[id(t)] for t in given if id(t) in self._known]
        written = (kwargs.get("out"), *args[: writes_in_place(func, kwargs)])
        if len(known) < len(given):
            args, kwargs = self._sized(func, args, kwargs)
            result = func(*args, **kwargs)
            for tensor in written:
                self._forget(tensor)
            for held in known:  # what aliases a known value may be written to unseen
                if isinstance(result, Tensor) and same_memory(result, held.traced):
                    self._forget(held.traced)
            return result
        sources = frozenset[str]().union(*(k.sources for k in known))
        if func in READS and given:
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
        return self._noted(result, value, sources)

    def _computed(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """``func`` of the true values; Unknown where it fails or draws random numbers.

        It runs on the model's device, since another one may round differently. Where that is
        meta, which holds no values, it runs on the CPU.
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
                return Unknown()  # the trace itself will say what is wrong
            if not all(map(torch.equal, random_states(), random)):
                set_random_states(random)
                return Unknown()
            if func in ARRAYS:
                value.flags.writeable = False  # the graph would not see what NumPy writes
            return value

    def _sized(self, func: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The same call, told the size of a result that depends on known values."""
        if func in INDEXING:
            return (args[0], self._index(args[1]), *args[2:]), kwargs
        if func in REPEATS:
            repeats = self._value(kwargs.get("repeats", args[1] if len(args) > 1 else None))
            if repeats is not None:
                with no_dispatch_modes():
                    return args, kwargs | {"output_size": int(repeats.sum())}
        return args, kwargs

    def _index(self, index: Any) -> Any:
        """``index`` with each known mask replaced by the places where it is true."""
        if isinstance(index, tuple):
            return tuple(part for i in index for part in (self._places(i) or (i,)))
        return self._places(index) or index

    def _places(self, mask: Any) -> tuple[Tensor, ...] | None:
        """Where a known ``mask`` is true; None where it is not known, or no mask."""
        value = self._value(mask)
        if value is None or value.dtype is not torch.bool:
            return None
        with no_dispatch_modes():
            places = value.nonzero(as_tuple=True)
        return tuple(place.to(mask.device) for place in places)

    def _value(self, tensor: Any) -> Tensor | None:
        """The true value of ``tensor``, which the graph then depends on; None if unknown."""
        known = self._known.get(id(tensor))
        if known is None:
            return None
        self.read |= known.sources
        return known.value

    def _noted(self, result: Any, value: Any, sources: frozenset[str]) -> Any:
        """``result``, its true value kept; the value itself where its shape depends on values."""
        if isinstance(result, list | tuple) and isinstance(value, list | tuple):
            pairs = zip(result, value, strict=True)
            noted = [self._noted(r, v, sources) for r, v in pairs]
            return type(result)(*noted) if hasattr(result, "_fields") else type(result)(noted)
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
        """``written`` was overwritten by something unknown, and whatever shares its memory."""
        for known in self._sharing(written):
            del self._known[id(known.traced)]

    def _add_sources(self, written: Any, sources: frozenset[str]) -> None:
        """``written``, and whatever shares its memory, was overwritten with known values."""
        for known in self._sharing(written):
            self._known[id(known.traced)] = known._replace(sources=known.sources | sources)

    def _sharing(self, tensor: Any) -> list[Known]:
        """The known values that share memory with that of ``tensor``, itself included."""
        known = self._known.get(id(tensor))
        if known is None:
            return []
        return [k for k in self._known.values() if same_memory(k.value, known.value)]


def elements(result: Any) -> int:
    """How many elements there are in the tensors of ``result``; unknown sizes count as 1."""
    tensors = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor)]
    sizes = ([s for s in tensor.shape if isinstance(s, int)] for tensor in tensors)
    return sum(map(math.prod, sizes))


def with_values(device: torch.device) -> torch.device:
    """``device``, or the CPU in the place of meta."""
    return torch.device("cpu") if device.type == "meta" else device


def random_states() -> list[Tensor]:
    """The states of torch's default generators: the CPU's, and the current GPU's if in use."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return states


def set_random_states(states: Sequence[Tensor]) -> None:
    """Set the generators to ``states``."""
    for state, put_back in zip(
        states, (torch.set_rng_state, torch.cuda.set_rng_state), strict=False
    ):
        put_back(state)


class Unknown:
    """Stands for a value that is not known."""


def writes_in_place(func: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether ``func`` writes to its first argument."""
    name = getattr(func, "__name__", "")
    inplace_operator = name.startswith("__i") and name.endswith("__") and name != "__index__"
    method = name.endswith("_") and not name.endswith("__")
    return name == "__setitem__" or inplace_operator or method or bool(kwargs.get("inplace"))
