"""Timesteps that are Python numbers, over the calls of one module: one trace serves many."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from torch import Tensor, nn

from fxcache.call import Call
from fxcache.capture.bind import Trace, number_tensors, trace_of
from fxcache.capture.export import as_original
from fxcache.capture.isolation import ONE_AT_A_TIME
from fxcache.errors import CaptureError
from fxcache.runtime.offload import Offload
from fxcache.runtime.values import Values

MAX_WAYS = 8
MAX_NUMBERS = 1024


class Numbers:
    """The traces of each kind of call, and the tensors that numbers became.

    ``offload``: of weights, which a trace needs where the model has them.
    """

    def __init__(self, original: type[nn.Module], offload: Offload):
        self._original, self._offload = original, offload
        self._traces: dict[Hashable, list[Trace]] = {}
        self._read: dict[Hashable, frozenset[str]] = {}
        self._tensors: OrderedDict[Hashable, tuple[Trace, tuple[Tensor, ...]]] = OrderedDict()
        self._values = Values()

    def clear(self) -> None:
        """Forget all: the model is another one."""
        self._traces.clear()
        self._read.clear()
        self._tensors.clear()

    def bound(self, module: nn.Module, call: Call, hooks: int) -> Call:
        """``call`` with tensors for its number, under the hooks with this number."""
        kind = (hooks, call.key, *(tensor.shape for tensor in call.tensors))
        found = self._tensors.get((self._kind(kind, call), exact(call.number)))
        if found is None:
            with ONE_AT_A_TIME:  # a trace puts stand-ins in place of the weights
                found = self._found(module, call, kind)
                self._tensors[self._kind(kind, call), exact(call.number)] = found
                if len(self._tensors) > MAX_NUMBERS:
                    self._tensors.popitem(last=False)
        trace, tensors = found
        return call.with_number(tensors, trace)

    def _kind(self, kind: Hashable, call: Call) -> Hashable:
        """``kind``, and the values that its traces hold for."""
        read = self._read.get(kind)
        if not read:
            return kind
        tensors = call.by_path()
        return kind, tuple(self._values.number(tensors[path]) for path in sorted(read))

    def _found(
        self, module: nn.Module, call: Call, kind: Hashable
    ) -> tuple[Trace, tuple[Tensor, ...]]:
        original = as_original(module, self._original)
        traces = self._traces.setdefault(self._kind(kind, call), [])
        for index, trace in enumerate(traces):
            if found := number_tensors(original, call, trace):
                traces[index] = found[0]
                return found
        if len(traces) == MAX_WAYS:
            raise too_many(call, type(original).__name__)
        self._offload.bring_back()
        trace = trace_of(original, call)
        self._read[kind] = self._read.get(kind, frozenset()) | trace.read
        found = number_tensors(original, call, trace)
        if found is None:
            raise too_many(call, type(original).__name__)
        self._traces.setdefault(self._kind(kind, call), []).append(found[0])
        return found


def exact(number: Any) -> Hashable:
    """What tells 1 from 1.0, and 0.0 from -0.0."""
    return type(number), repr(number)


def too_many(call: Call, model: str) -> CaptureError:
    return CaptureError(
        f"{call.timestep_name} is a Python number, and the model does other things for each value: "
        "it would take a capture for each",
        where=f"{model}.forward, {call.timestep_name}={call.number}",
        remedy="pass the timestep as a tensor, such as an element of the noise scheduler's",
    )
