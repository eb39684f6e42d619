"""Records a model's calls of torch functions, and replays them for another number."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fxcache._torch import (
    fake_mode_for,
    is_fake,
    tree_flatten,
    tree_map_only,
)
from fxcache.call import Call
from fxcache.capture.isolation import own_context
from fxcache.capture.numbers import (
    Entry,
    Kind,
    NumberTrace,
    Ref,
    Slot,
    same,
)
from fxcache.capture.preserve import Preserved
from fxcache.capture.specialize import Specialize

CONSTANTS = (bool, int, float, complex, str)


class Names:
    """The tensors of one run, by reference."""

    def __init__(self, module: nn.Module, inputs: Mapping[str, Tensor]):
        weights = chain(module.named_parameters(), module.named_buffers())
        self.tensors = {Ref("weight", name): weight for name, weight in weights}
        self.tensors |= {Ref("input", path): tensor for path, tensor in inputs.items()}
        self._refs = {id(tensor): ref for ref, tensor in self.tensors.items()}

    def add(self, ref: Ref, tensor: Tensor) -> None:
        """Add a reference to a tensor that has none."""
        if id(tensor) not in self._refs:
            self._refs[id(tensor)] = ref
            self.tensors[ref] = tensor

    def described(self, leaf: Any) -> Any:
        """``leaf``, with its ``Ref`` in place of a known tensor."""
        if isinstance(leaf, Tensor):
            return self._refs.get(id(leaf), leaf)
        if isinstance(leaf, slice):
            return slice, tuple(map(self.described, (leaf.start, leaf.stop, leaf.step)))
        return leaf


class Record(TorchFunctionMode):
    """Records the calls of torch functions."""

    def __init__(self, names: Names):
        super().__init__()
        self.entries: list[Entry] = []
        self._names = names

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        leaves, spec = tree_flatten((args, kwargs or {}))
        described = tuple(map(self._names.described, leaves))
        first = Kind.of(args[0]) if args else None
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor)]
        for index, tensor in enumerate(tensors):
            self._names.add(Ref("call", (len(self.entries), index)), tensor)
        # A result without tensors is not mapped: a torch.Size would become a tuple.
        named = tree_map_only(Tensor, self._names.described, result) if tensors else result
        made = Kind.of(result)
        self.entries.append(Entry(func, spec, described, named, made, first, bool(tensors)))
        return result


class Replay(TorchFunctionMode):
    """Returns the recorded result of each call.

    Attributes:
        values: The tensor for each slot, computed by the model's Python code in this run.
    """

    def __init__(self, trace: NumberTrace, names: Names):
        super().__init__()
        self.values: dict[Slot, Tensor] = {}
        self._trace, self._entries, self._names = trace, trace.entries, names
        self._next = 0
        self._slots: dict[int, list[Slot]] = defaultdict(list)
        for slot in trace.slots:
            self._slots[slot.call].append(slot)
        self._diverged = False

    @property
    def complete(self) -> bool:
        """Whether the model made exactly the recorded calls."""
        return not self._diverged and self._next == len(self._entries)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if (
            self._diverged
            or self._next == len(self._entries)
            or not self._matches(self._entries[self._next], func, args, kwargs or {})
        ):
            self._diverged = True
            raise Diverged
        self._next += 1
        entry = self._entries[self._next - 1]
        if isinstance(entry.result, Ref):
            return self._stand_in(entry.result)
        return tree_map_only(Ref, self._stand_in, entry.result) if entry.tensors else entry.result

    def _matches(self, entry: Entry, func: Callable[..., Any], args: Any, kwargs: Any) -> bool:
        """Whether a call matches ``entry``, except for numbers in slots. Stores their tensors."""
        leaves, spec = tree_flatten((args, kwargs))
        if func != entry.func or spec != entry.spec:
            return False
        pairs = zip(map(self._names.described, leaves), entry.leaves, strict=True)
        changed = [i for i, (now, then) in enumerate(pairs) if not same(now, then)]
        for slot in (*(entry.slot(self._next, i) for i in changed), *self._slots[self._next]):
            value = entry.value(slot, leaves) if slot else None
            if slot is None or value is None:
                return False
            self.values[slot] = value
        return True

    def _stand_in(self, ref: Ref) -> Tensor:
        """Return the tensor of this run for ``ref``."""
        if ref not in self._names.tensors:
            self._names.add(ref, self._trace.stand_in(ref))
        return self._names.tensors[ref]


class Diverged(Exception):  # noqa: N818, it ends a replay and is no error
    """The model makes another call than the recorded one. This ends the replay."""


def record(module: nn.Module, call: Call) -> NumberTrace:
    """Record a run of ``module`` on fake tensors, and find the slots by replays for other numbers.

    An error of the model is passed on.
    """
    known = Specialize(call.readable())
    fakes = fake_mode_for(call.tensors)
    inputs = [t if is_fake(t) else fakes.from_tensor(t) for t in call.tensors]
    named = dict(zip(call.paths, inputs, strict=True))
    known.learn({path: tensor for path, tensor in named.items() if path in call.readable()})
    mode = Record(Names(module, named))
    rebuilt = call.rebuilt(inputs, call.number)
    quiet = torch.inference_mode(False), torch.no_grad()
    kept = Preserved(module)
    with kept, quiet[0], quiet[1], fakes, known, mode:
        result = own_context(rebuilt.run, module)
    trace = NumberTrace(tuple(mode.entries), frozenset(known.read), constants_of(result))
    slots: set[Slot] = set()
    for number in nearby_numbers(call.number):
        slots |= (replayed(trace, module, call, number, kept) or {}).keys()
    return replace(trace, slots=tuple(sorted(slots)))


def nearby_numbers(number: Any) -> Iterator[Real]:
    """Numbers of the same type near ``number``: the model probably makes the same calls."""
    kind = type(number)
    yield from (
        kind(n)
        for n in (
            (number + 1, number - 1)
            if isinstance(number, Integral)
            else (number * 0.875, number * 1.125 + 0.0625)
        )
    )


def values_at(
    trace: NumberTrace, module: nn.Module, call: Call, number: Any
) -> dict[Slot, Tensor] | None:
    """Return the tensors that represent ``number``, by slot.

    Returns:
        A tensor for each slot of the trace, and for each further place whose value differs from
        the recorded one. None if the model makes other calls for this number.
    """
    return replayed(trace, module, call, number, Preserved(module))


def replayed(
    trace: NumberTrace, module: nn.Module, call: Call, number: Any, kept: Preserved
) -> dict[Slot, Tensor] | None:
    """Return ``values_at`` the number. ``kept`` restores the module."""
    inputs = [trace.stand_in(Ref("input", path)) for path in call.paths]
    replay = Replay(trace, Names(module, dict(zip(call.paths, inputs, strict=True))))
    rebuilt = call.rebuilt(inputs, number)
    try:
        with kept, torch.inference_mode(False), torch.no_grad(), replay:
            returned = constants_of(own_context(rebuilt.run, module))
    except Exception:
        return None  # the replay ended, or the model failed: a new record will report the error
    equal = len(returned) == len(trace.returned) and all(map(same, returned, trace.returned))
    return replay.values if replay.complete and equal else None


def constants_of(result: Any) -> tuple[Any, ...]:
    """Return the numbers and strings in a result of the model."""
    return tuple(leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, CONSTANTS))
