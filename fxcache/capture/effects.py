"""Finds what a traced call changes in the Python objects of the module.

Attention processors that keep their maps, hooks that collect features and counters of steps are
examples. A graph has no such effects, and the trace puts back what it changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

from torch import SymInt, Tensor, fx, nn

from fxcache._torch import ModuleProxy, draws, is_fake, same_memory
from fxcache.capture.containers import MISSING, Change, DictState, SetState
from fxcache.capture.leftovers import DEPTH, holds_leftovers, is_searched, referents
from fxcache.capture.preserve import Preserved
from fxcache.contents import PLAIN
from fxcache.effect import Effect, Place
from fxcache.kept import FLAGS, Access
from fxcache.program import output_node, value_of

# A trace replaces what they hold, so that they are compared inside of it.
REGISTRIES = ("_parameters", "_buffers", "_modules")
WEIGHTS = frozenset({*REGISTRIES, "_non_persistent_buffers_set"})


class Found(NamedTuple):
    """A change that a traced call made.

    Attributes:
        place: The attribute of a submodule that leads to it.
        change: The change.
        tensors: The tensors of the trace in the new value.
        fills: Whether there was no value before, or None, or whether a flag changes.
    """

    place: Place
    change: Change
    tensors: tuple[Tensor, ...]
    fills: bool


class Effects:
    """What one traced call changes. The graph first returns its tensors as further outputs."""

    def __init__(self) -> None:
        """Start without changes."""
        self._preserved: Preserved | None = None
        self._registries: list[tuple[str, DictState]] = []
        self._persistence: list[SetState] = []
        self._found: list[Found] = []

    @contextmanager
    def undone(self, module: nn.Module) -> Iterator[None]:
        """Restores ``module`` at the end of the block, in which ``find`` compares it."""
        try:
            with Preserved(module) as self._preserved:
                yield
        finally:  # it refers to the traced function, which refers to this object
            self._preserved = None

    def begin(self, module: nn.Module) -> None:
        """Note the weights and submodules of ``module`` at the beginning of the traced call."""
        self._registries = [
            (path, DictState(vars(m)[name]))
            for path, m in module.named_modules()
            for name in REGISTRIES
        ]
        self._persistence = [SetState(m._non_persistent_buffers_set) for m in module.modules()]

    def find(self, kept: Mapping[Place, Access]) -> list[Tensor]:
        """Find the changes at the end of the traced call. Return the tensors in them.

        Args:
            kept: What the call did to the attributes that were replaced for the trace.
        """
        assert self._preserved is not None
        self._found = [
            Found(place, change, tuple(tensors_in(change.after)), fills(change, kept.get(place)))
            for place, change in chain(self._preserved.changes(), self._registry_changes())
            if place.name not in WEIGHTS
            and kept.get(place) not in (Access.READ, Access.REPLACED)
            and is_change(change)
        ]
        for _, registry in self._registries:  # or torch.export misses deleted buffers
            registry.put_back()
        for names in self._persistence:
            names.put_back()
        return [tensor for found in self._found for tensor in found.tensors]

    def _registry_changes(self) -> Iterator[tuple[Place, Change]]:
        """Yield the weights and submodules that the call assigned, after their places."""
        for path, registry in self._registries:
            for change in registry.changes():
                yield Place(path, change.name), change

    def take(
        self, graph: fx.Graph, weights: Mapping[str, Any], module: nn.Module
    ) -> tuple[Effect, ...]:
        """Remove the further outputs from ``graph``, and return the effects.

        A tensor that depends on no input is no effect by itself, unless the graph reads the one
        that it replaces. A model that keeps its rotary frequencies only saves its next calls a
        computation. It is listed with others that are.

        Args:
            graph: The graph of the call.
            weights: The tensors that it reads, by name.
            module: The module, restored.
        """
        read = [weights.get(str(n.target)) for n in ancestors(output_node(graph))]
        (output,) = graph.find_nodes(op="output")
        results: list[Any] = list(output.args[0])
        num_tensors = sum(len(found.tensors) for found in self._found)
        stored = iter(results[len(results) - num_tensors :])
        output.args = (tuple(results[: len(results) - num_tensors]),)
        effects: list[Effect] = []
        constants: list[Effect] = []
        for place, change, tensors, filled in self._found:
            nodes = [next(stored) for _ in tensors]
            stores = any(map(depends_on_input, nodes))
            entry = change.name if isinstance(change.name, str) else ""
            replaces = shares_memory(replaced(place, change, module), read)
            found = effects if stores or replaces or not tensors else constants
            found.append(Effect(place, entry, stores, filled, is_number(change.after)))
        listed = any(effect.stores for effect in effects)
        return tuple(dict.fromkeys((*effects, *(constants if listed else ()))))


def fills(change: Change, access: Access | None) -> bool:
    """Return whether there was no value before, or None, or whether a flag changes.

    Args:
        change: The change.
        access: What the call did to the attribute, if it was replaced for the trace.
    """
    if access is not None:
        return access is Access.FILLED
    if isinstance(change.before, FLAGS):
        return isinstance(change.after, FLAGS)
    return change.before is MISSING or change.before is None


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a number, such as a counter's, and no flag."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_change(change: Change) -> bool:
    """Return whether the value is another one, or holds a value of the trace."""
    if change.before is MISSING or change.after is MISSING or holds_leftovers(change.after):
        return not isinstance(change.after, ModuleProxy)
    return not same(change.before, change.after)


def same(first: Any, second: Any, depth: int = DEPTH) -> bool:
    """Return whether two values are equal, as far as they consist of plain values."""
    kind = type(first)
    if first is second or kind is not type(second) or depth == 0:
        return kind is type(second)
    if isinstance(first, PLAIN):
        return bool(first == second) or repr(first) == repr(second)  # a NaN equals itself
    if kind is dict:
        keys = list(first) == list(second)
        return keys and all(same(first[k], second[k], depth - 1) for k in first)
    if kind in (list, tuple):
        pairs = zip(first, second, strict=False)
        return len(first) == len(second) and all(same(a, b, depth - 1) for a, b in pairs)
    if isinstance(first, nn.Module | Tensor):
        return False
    attributes = (getattr(first, "__dict__", None), getattr(second, "__dict__", None))
    return not isinstance(attributes[0], dict) or same(*attributes, depth - 1)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the fake tensors in ``value``."""
    return filter(is_fake, all_tensors_in(value))


def all_tensors_in(value: Any, depth: int = DEPTH) -> Iterator[Tensor]:
    """Yield the tensors in ``value``."""
    if isinstance(value, Tensor):
        yield value
    elif depth and is_searched(type(value)):
        for item in referents(value):
            yield from all_tensors_in(item, depth - 1)


def replaced(place: Place, change: Change, module: nn.Module) -> list[Tensor]:
    """Return the tensors that a change replaced, as they are outside of the trace."""
    before = change.before
    if isinstance(before, Tensor) and is_fake(before):  # a weight
        before = place.owner(module).get(place.name)
    return list(all_tensors_in(before))


def shares_memory(tensors: Sequence[Tensor], others: Sequence[Any]) -> bool:
    """Return whether one of ``tensors`` shares memory with one of ``others``."""
    plain = [other for other in others if isinstance(other, Tensor)]
    return any(same_memory(tensor, other) for tensor in tensors for other in plain)


def depends_on_input(node: Any) -> bool:
    """Return whether ``node`` is an input of the graph, computed from one, or drawn at random."""
    return any(one.op == "placeholder" or draws(one.target) for one in ancestors(node))


def ancestors(node: Any) -> set[fx.Node]:
    """Return ``node`` and those that it is computed from, without sizes."""
    seen, stack = set[fx.Node](), [node]
    while stack:
        one = stack.pop()
        if one in seen or isinstance(value_of(one), int | SymInt):
            continue  # a size is part of the key of a capture
        seen.add(one)
        stack.extend(one.all_input_nodes)
    return seen
