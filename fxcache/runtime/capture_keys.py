"""The keys of captures: kinds of calls, hooks, and the input values that a graph holds for."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import NamedTuple
from weakref import ref

import torch
from torch import Tensor

from fxcache._torch import attention_choice, default_device
from fxcache.call import Call
from fxcache.capture.equality import equal_programs
from fxcache.layout import Layout, layouts_of
from fxcache.program import Program
from fxcache.rewrite.variants import Variants
from fxcache.runtime.values import Values

MAX_KINDS = 256


class CaptureKey(NamedTuple):
    """The key of a capture.

    Attributes:
        hooks: The number that identifies the hooks on submodules.
        kind: The key of the call.
        values: The numbers that identify the input values that the graph depends on.
        attention: The implementations that attention may use. The strides in a graph depend on it.
        default_device: The default device, on which a graph makes its tensors.
        layouts: The layouts of all inputs. A trace turns ``contiguous`` and ``reshape`` into what
            they do for these layouts.
        sizes: The shapes of all inputs, if the graph fixes sizes that were to vary.
    """

    hooks: int
    kind: Hashable
    attention: tuple[object, ...] = ()
    default_device: str = ""
    layouts: tuple[Layout, ...] = ()
    values: tuple[int, ...] = ()
    sizes: tuple[torch.Size, ...] = ()


class Served(NamedTuple):
    """The inputs that a capture serves, of those of its kind of call.

    Attributes:
        values: The values of inputs that the graph holds for, by path.
        layouts: The layouts of all inputs, for each layout that was called.
    """

    values: dict[str, Tensor]
    layouts: tuple[tuple[Layout, ...], ...]


class CaptureKeys:
    """Makes the keys of one model's captures.

    If the graphs of one kind of call hold for certain values of inputs, the values are part of the
    key of such a call. Calls with other layouts or default devices share a capture if a trace has
    shown that their graphs are equal.
    """

    def __init__(self, any_size: bool) -> None:
        """Start without kinds of calls. ``any_size``: whether sizes of inputs may vary."""
        self._any_size = any_size
        # By the key of a call, the inputs whose values its captures depend on.
        self._specialized: dict[Hashable, frozenset[str]] = {}
        self._values = Values()
        # By the key of a call, the key of the capture that it shares, and that capture.
        self._shared: dict[CaptureKey, tuple[CaptureKey, ref[Variants]]] = {}

    def inherit(self, previous: "CaptureKeys") -> None:
        """Take over what ``previous`` knows of the same model."""
        self._specialized, self._values = dict(previous._specialized), previous._values

    def key(self, call: Call, hooks: int) -> CaptureKey:
        """Return the key of ``call``; ``hooks`` is the number of the current hooks."""
        paths = self._specialized.get(call.key)
        chosen = attention_choice(), default_device()
        layouts = layouts_of(call.tensors, self._any_size)
        if not paths:
            return CaptureKey(hooks, call.key, *chosen, layouts)
        tensors = call.by_path().items()
        values = tuple(self._values.number(t) for path, t in tensors if path in paths)
        return CaptureKey(hooks, call.key, *chosen, layouts, values)

    def found(
        self, key: CaptureKey, captures: Mapping[CaptureKey, Variants]
    ) -> tuple[CaptureKey, Variants | None]:
        """Return the capture for ``key`` or the one that it shares, and the key of that one."""
        if self._shared and key in self._shared:
            other, shared = self._shared[key]
            variants = captures.get(other)
            if variants is not None and variants is shared():
                return other, variants
        return key, captures.get(key)

    def equal(
        self, key: CaptureKey, program: Program, captures: Mapping[CaptureKey, Variants]
    ) -> Variants | None:
        """Return the capture for other layouts or devices with the same graph, if there is one.

        Calls with ``key`` share it from now on.
        """
        for other, variants in candidates(key, captures):
            if equal_programs(variants.program, program):
                if len(self._shared) > MAX_KINDS:
                    self._shared.clear()
                self._shared[key] = other, ref(variants)
                return variants
        return None

    def outdated(self, keys: Iterable[CaptureKey]) -> list[CaptureKey]:
        """Return the keys that no call can have any more.

        A later graph of the same kind of call holds for the values of more inputs, so that the keys
        of new calls have more values.
        """
        return [k for k in keys if len(k.values) != len(self._specialized.get(k.kind, ()))]

    def learn(self, call: Call, specialized: frozenset[str]) -> None:
        """Add the paths of inputs whose values a new graph for calls like ``call`` holds for."""
        if len(self._specialized) > MAX_KINDS:
            self._specialized.clear()
        read = self._specialized.get(call.key, frozenset())
        self._specialized[call.key] = read | specialized

    def served(self, key: CaptureKey, program: Program) -> Served:
        """Return what inputs the capture with ``key`` serves, whose program is ``program``."""
        paths = self._specialized.get(key.kind, frozenset())
        inputs = (given.path for given in program.inputs)
        pairs = zip((path for path in inputs if path in paths), key.values, strict=True)
        values = {path: self._values.value(number) for path, number in pairs}
        shared = (own.layouts for own, (other, _) in self._shared.items() if other == key)
        return Served(values, (key.layouts, *shared))


def candidates(
    key: CaptureKey, captures: Mapping[CaptureKey, Variants]
) -> Iterator[tuple[CaptureKey, Variants]]:
    """Yield the captures whose keys differ from ``key`` in layouts and the default device alone."""
    for other, variants in list(captures.items()):
        same = other._replace(layouts=key.layouts, default_device=key.default_device) == key
        if other != key and same:
            yield other, variants
