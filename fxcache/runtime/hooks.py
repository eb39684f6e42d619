"""Gives each distinct state of the hooks on a model's submodules a number."""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from itertools import chain, compress, repeat
from operator import is_, is_not
from typing import Any

from torch import nn

from fxcache._torch import global_hooks, num_registered_hooks
from fxcache.runtime.content import IdentityKey
from fxcache.runtime.identities import Containers
from fxcache.runtime.slots import Slot, Tree

MAX_STATES = 64


class Numbers:
    """Gives equal keys equal numbers. It keeps the most recently used keys."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, int] = OrderedDict()
        self._last = 0
        self._lock = threading.Lock()

    def number(self, key: Hashable) -> int:
        """Return the number of ``key``; a new number if it is unknown."""
        with self._lock:
            if key not in self._known:
                self._last += 1
                self._keep(key, self._last)
            self._known.move_to_end(key)
            return self._known[key]

    def alias(self, key: Hashable, number: int) -> None:
        """Give ``key`` the number of another key."""
        with self._lock:
            self._keep(key, number)

    def _keep(self, key: Hashable, number: int) -> None:
        self._known[key] = number
        if len(self._known) > MAX_STATES:
            self._known.popitem(last=False)


class HooksState:
    """The hooks of a model at one time, in flat lists that each call compares at C speed.

    Slots are compared by the identity of their values, and of the objects in their containers. The
    content of hooks and volatile slots, which are few, is read again at each call.
    """

    def __init__(self, tree: Tree, slots: Mapping[int, list[Slot]]):
        self.tree, self._slots_by_module = tree, slots
        self._registered = num_registered_hooks()  # read first: other threads may register hooks
        self._hooked = tree.hooked()
        self._length = len(vars(tree.root))
        self._lengths_below = list(map(len, tree.attributes_below))
        self._slots = [slot for index in sorted(slots) for slot in slots[index]]
        # The model's own __dict__ is not kept: see Modules in identities.py.
        self._num_own = sum(slot.index == 0 for slot in self._slots)
        self._places = [slot.attributes for slot in self._slots[self._num_own :]]
        self._names = [slot.name for slot in self._slots]
        self._values = [slot.value for slot in self._slots]
        self._volatile = [slot for slot in self._slots if slot.volatile]
        steady = [slot for slot in self._slots if not slot.volatile]
        self.steady_key = tuple(slot.key for slot in steady if not slot.plain)
        self._containers = Containers(c for slot in steady for c in slot.containers)

    @classmethod
    def of(cls, module: nn.Module) -> "HooksState":
        """Return the current hooks of ``module``."""
        tree = Tree(module)
        found = ((index, tree.slots(index)) for index in range(len(tree.paths)))
        return cls(tree, {index: slots for index, slots in found if slots})

    def holds(self) -> bool:
        """Return whether no hook was registered, and no slot or container changed."""
        own = vars(self.tree.root)
        return (
            num_registered_hooks() == self._registered
            and len(own) == self._length
            and list(map(len, self.tree.attributes_below)) == self._lengths_below
            and all(map(is_, self._now(own), self._values))
            and self._containers.hold()
        )

    def renewed(self) -> "HooksState":
        """Return the current hooks. Only modules that changed are read."""
        now = list(map(len, self.tree.attributes))
        then = (self._length, *self._lengths_below)
        lengths = zip(now, then, strict=True)
        changed = {index for index, (new, old) in enumerate(lengths) if new != old}
        replaced = compress(self._slots, map(is_not, self._now(vars(self.tree.root)), self._values))
        changed.update(slot.index for slot in replaced)
        if not self._containers.hold():
            changed.update(slot.index for slot in self._slots if slot.containers)
        slots = {**self._slots_by_module, **{i: self.tree.slots(i) for i in changed}}
        return HooksState(self.tree, slots)

    def volatile_key(self) -> Hashable:
        """Return the current content of hooks and volatile slots."""
        everywhere = hooks_on_all()
        if not self._volatile and not self._hooked and not everywhere:
            return ()
        registered = map(self.tree.hooks_key, self._hooked)
        slots = (slot.key_now() for slot in self._volatile)
        return (*slots, *filter(None, registered), *everywhere)

    def identities(self) -> Hashable:
        """Return the identities of hooks and volatile slots, and the content of other slots."""
        volatile = tuple(
            (slot.index, slot.name, IdentityKey(slot.value)) for slot in self._volatile
        )
        registered = map(self.tree.hook_identities, self._hooked)
        return volatile, tuple(registered), hooks_on_all(), self.steady_key

    def _now(self, own: dict[str, Any]) -> Iterable[object]:
        """Return the current value of each slot; ``own`` is the model's ``__dict__``."""
        return map(dict.get, chain(repeat(own, self._num_own), self._places), self._names)


def hooks_on_all() -> tuple[Hashable, ...]:
    """Return the identities of the hooks on all modules.

    Their content is not compared: they run around the model itself at each call, and may count.
    """
    found = global_hooks()
    return tuple((kind, IdentityKey(hook), *flags) for kind, hook, *flags in found) if found else ()


class Hooks:
    """The hooks on the submodules of one model.

    ``key`` is read at each call. It is equal for hooks of equal content: hooks that are removed and
    created again have the same key.
    """

    def __init__(self) -> None:
        self._numbers = Numbers()
        self._state: HooksState | None = None
        self._last: tuple[HooksState, Hashable, int] | None = None

    def key(self, module: nn.Module) -> int:
        """Return the number of the current hooks on submodules of ``module``."""
        state = self._current(module)
        volatile = state.volatile_key()
        last = self._last
        if last is None or last[0] is not state or last[1] != volatile:
            last = self._last = (state, volatile, self._number(state, volatile))
        return last[2]

    def identities(self, module: nn.Module) -> Hashable:
        """Return what ``settle`` compares: identities of hooks, content of other slots."""
        return self._current(module).identities()

    def settle(self, module: nn.Module, number: int, before: Hashable) -> None:
        """Keep the number of hooks that changed their own state during a capture.

        Args:
            module: The model.
            number: The key of the hooks when the capture began.
            before: Their ``identities`` when the capture began.
        """
        state = self._current(module)
        if state.identities() == before:
            self._numbers.alias(self._key_of(state, state.volatile_key()), number)
            self._last = None

    def forget(self) -> None:
        """Read the whole model again at the next call, because its modules changed."""
        self._state = None

    def _current(self, module: nn.Module) -> HooksState:
        state = self._state
        if state is None or state.tree.root is not module:
            state = self._state = HooksState.of(module)
        elif not state.holds():
            state = self._state = state.renewed()
        return state

    def _number(self, state: HooksState, volatile: Hashable) -> int:
        return self._numbers.number(self._key_of(state, volatile))

    def _key_of(self, state: HooksState, volatile: Hashable) -> Hashable:
        """Return a short key: one number replaces the keys of hundreds of steady slots."""
        return self._numbers.number(state.steady_key), volatile
