"""Calls whose timestep is a Python number: one trace of the model serves many numbers."""

from collections import OrderedDict
from collections.abc import Hashable

from torch import Tensor, nn

from fxcache.call import Call
from fxcache.capture.bind import Trace, number_tensors, trace_of
from fxcache.capture.isolation import ONE_AT_A_TIME
from fxcache.capture.loading import traced_loading
from fxcache.capture.sharding import require_tensor_timestep
from fxcache.capture.stand_in import as_original
from fxcache.errors import CaptureError
from fxcache.runtime.content import exact_key
from fxcache.runtime.offload import Offload
from fxcache.runtime.values import Values

MAX_TRACES = 8
MAX_NUMBERS = 1024


class Numbers:
    """The traces for each kind of call, and the tensors that replace the numbers.

    Args:
        original: The class of the model without fxcache.
        offload: Moves offloaded weights back before the model is traced.
    """

    def __init__(self, original: type[nn.Module], offload: Offload):
        self._original, self._offload = original, offload
        self._traces: dict[Hashable, list[Trace]] = {}
        self._read: dict[Hashable, frozenset[str]] = {}
        self._tensors: OrderedDict[Hashable, tuple[Trace, tuple[Tensor, ...]]] = OrderedDict()
        self._values = Values()

    def clear(self) -> None:
        """Drop all traces and tensors, because the model has changed."""
        self._traces.clear()
        self._read.clear()
        self._tensors.clear()

    def bound(self, module: nn.Module, call: Call, hooks: int) -> Call:
        """Return ``call`` with tensors in place of its number.

        Args:
            module: The model.
            call: The call.
            hooks: The number of the current state of the hooks, see ``Hooks``.
        """
        kind = (hooks, call.key, *(tensor.shape for tensor in call.tensors))
        found = self._tensors.get((self._kind(kind, call), exact_key(call.number)))
        if found is None:
            require_tensor_timestep(module, call)
            with ONE_AT_A_TIME:  # tracing replaces the model's weights by placeholders
                with traced_loading(as_original(module, self._original)) as original:
                    found = self._find(original, call, kind)
                self._tensors[self._kind(kind, call), exact_key(call.number)] = found
                if len(self._tensors) > MAX_NUMBERS:
                    self._tensors.popitem(last=False)
        trace, tensors = found
        return call.with_number(tensors, trace)

    def _kind(self, kind: Hashable, call: Call) -> Hashable:
        """Return ``kind``, extended by the values of the tensors that its traces read."""
        read = self._read.get(kind)
        if not read:
            return kind
        tensors = call.by_path()
        return kind, tuple(self._values.number(tensors[path]) for path in sorted(read))

    def _find(
        self, original: nn.Module, call: Call, kind: Hashable
    ) -> tuple[Trace, tuple[Tensor, ...]]:
        traces = self._traces.setdefault(self._kind(kind, call), [])
        for index, trace in enumerate(traces):
            if found := number_tensors(original, call, trace):
                traces[index] = found[0]
                return found
        if len(traces) == MAX_TRACES:
            raise too_many_traces(call, type(original).__name__)
        self._offload.bring_back()
        trace = trace_of(original, call)
        self._read[kind] = self._read.get(kind, frozenset()) | trace.read
        found = number_tensors(original, call, trace)
        if found is None:
            raise too_many_traces(call, type(original).__name__)
        self._traces.setdefault(self._kind(kind, call), []).append(found[0])
        return found


def too_many_traces(call: Call, model: str) -> CaptureError:
    return CaptureError(
        f"{call.timestep_name} is a Python number, and the model computes different things for "
        "different values: each value would need its own capture",
        where=f"{model}.forward, {call.timestep_name}={call.number}",
        remedy="pass the timestep as a tensor, such as an element of the noise scheduler's",
    )
