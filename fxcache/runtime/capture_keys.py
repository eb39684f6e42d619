"""The keys of captures: kinds of calls, hooks, and the input values that a graph holds for."""

from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from fxcache._torch import attention_choice
from fxcache.call import Call
from fxcache.program import Program
from fxcache.runtime.values import Values

MAX_KINDS = 256


class CaptureKey(NamedTuple):
    """The key of a capture.

    Attributes:
        hooks: The number that identifies the hooks on submodules.
        kind: The key of the call.
        values: The numbers that identify the input values that the graph depends on.
        attention: The implementations that attention may use. The strides in a graph depend on it.
        sizes: The shapes of all inputs, if the graph fixes sizes that were to vary.
    """

    hooks: int
    kind: Hashable
    attention: tuple[object, ...] = ()
    values: tuple[int, ...] = ()
    sizes: tuple[torch.Size, ...] = ()


class CaptureKeys:
    """Makes the keys of one model's captures.

    If the graphs of one kind of call hold for certain values of inputs, the values are part of the
    key of such a call.
    """

    def __init__(self) -> None:
        """Start without kinds of calls."""
        # By the key of a call, the inputs whose values its captures depend on.
        self._specialized: dict[Hashable, frozenset[str]] = {}
        self._values = Values()

    def inherit(self, previous: "CaptureKeys") -> None:
        """Take over what ``previous`` knows of the same model."""
        self._specialized, self._values = dict(previous._specialized), previous._values

    def key(self, call: Call, hooks: int) -> CaptureKey:
        """Return the key of ``call``; ``hooks`` is the number of the current hooks."""
        paths = self._specialized.get(call.key)
        attention = attention_choice()
        if not paths:
            return CaptureKey(hooks, call.key, attention)
        tensors = call.by_path().items()
        values = tuple(self._values.number(t) for path, t in tensors if path in paths)
        return CaptureKey(hooks, call.key, attention, values)

    def learn(self, call: Call, specialized: frozenset[str]) -> None:
        """Add the paths of inputs whose values a new graph for calls like ``call`` holds for."""
        if len(self._specialized) > MAX_KINDS:
            self._specialized.clear()
        read = self._specialized.get(call.key, frozenset())
        self._specialized[call.key] = read | specialized

    def constants(self, key: CaptureKey, program: Program) -> dict[str, Tensor]:
        """Return the values of inputs that the graph of ``program`` holds for, by path."""
        paths = self._specialized.get(key.kind, frozenset())
        inputs = (given.path for given in program.inputs)
        pairs = zip((path for path in inputs if path in paths), key.values, strict=True)
        return {path: self._values.value(number) for path, number in pairs}
