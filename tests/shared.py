"""Captures that tests share: each process makes a capture once."""

import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fxcache.call import Call
from fxcache.capture import bind
from fxcache.capture.bind import Trace
from fxcache.capture.capture import capture
from fxcache.capture.numbers import NumberTrace
from fxcache.capture.stand_in import as_original
from fxcache.program import Program
from fxcache.runtime.structure import live_weights
from fxcache.signature import Signature

MOST = 64


class Captures:
    """``capture``, which gives again what it found for the same call of the same model.

    The same: all that a module holds has equal content, weights included. Most tests build one of a
    few small models, and half of their time would go into captures of it.
    """

    def __init__(self) -> None:
        self._programs: OrderedDict[Any, Program] = OrderedDict()

    def __call__(
        self, module: nn.Module, signature: Signature, call: Call, fixed: bool = False
    ) -> Program:
        model = content_of(as_original(module, signature.original))
        if model is None:
            return capture(module, signature, call, fixed)
        dynamic = tuple(sorted((path, *dims) for path, dims in signature.dynamic.items()))
        sizes = tuple(tensor.shape for tensor in call.tensors)  # a size of one is not left open
        inputs = (signature.original, signature.latent, dynamic, key_of(call), sizes)
        key = (model, inputs, fixed)
        if key not in self._programs:
            program = capture(module, signature, call, fixed)
            if program.specialized:  # for the values of this call's tensors only
                return program
            self._programs[key] = program
        self._programs.move_to_end(key)
        if len(self._programs) > MOST:
            self._programs.popitem(last=False)
        program = self._programs[key]
        return replace(program, weights=live_weights(module, program.weights))


class Bindings:
    """``trace_of`` and ``number_tensors``, which give again what they found for the same number.

    The same: of the same type, in the same call of the same model, as for ``Captures``. Loops in
    tests have timesteps that are Python numbers, and each would be traced for each model.
    """

    def __init__(self) -> None:
        self._found: OrderedDict[Any, Any] = OrderedDict()

    def trace_of(self, module: nn.Module, call: Call) -> Trace:
        found: Trace = self._shared(module, call, None, lambda: bind.trace_of(module, call))
        return found

    def number_tensors(self, module: nn.Module, call: Call, trace: Trace) -> Any:
        def find() -> Any:
            return bind.number_tensors(module, call, trace)

        return self._shared(module, call, trace, find)

    def _shared(
        self, module: nn.Module, call: Call, trace: Trace | None, find: Callable[[], Any]
    ) -> Any:
        model = None if call.state or getattr(trace, "read", None) else content_of(module)
        if model is None:
            return find()
        sizes = tuple(tensor.shape for tensor in call.tensors)
        key = (model, call.key, sizes, type(call.number), repr(call.number), id(trace))
        if key not in self._found:
            found = find()
            if found is None or getattr(found, "read", None):  # for the values of this call only
                return found
            self._found[key] = found, trace  # which keeps its id
        self._found.move_to_end(key)
        if len(self._found) > 16 * MOST:
            self._found.popitem(last=False)
        return self._found[key][0]


def key_of(call: Call) -> Any:
    """Return the key of the call. Equal models record equal traces for an equal number."""
    if not isinstance(call.trace, NumberTrace):
        return call.key
    assert isinstance(call.key, tuple)
    return call.key[0], type(call.number), call.number, call.trace.slots


class Content(pickle.Pickler):
    """Pickles objects with their content; a tensor as its kind, its values and its number."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._numbers: dict[int, int] = {}

    def persistent_id(self, value: Any) -> Any:
        """Return the replacement of ``value`` if that is a tensor."""
        if type(value) not in (Tensor, nn.Parameter):
            return None
        number = self._numbers.setdefault(id(value), len(self._numbers))
        kind = (value.shape, value.stride(), value.dtype, value.device, value.requires_grad)
        if value.is_meta:  # it has no values
            return repr((number, kind)), b""
        return repr((number, kind)), value.detach().flatten().view(torch.uint8).numpy().tobytes()


def content_of(module: nn.Module) -> bytes | None:
    """Return a key that is equal for modules of equal content; None if that is unknown."""
    file = io.BytesIO()
    try:
        Content(file).dump(module)
    except Exception:  # a local class, a hook that is a local function, a weight of another kind
        return None
    return hashlib.sha256(file.getvalue()).digest()
