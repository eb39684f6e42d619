"""A snapshot of a module in flat lists, which is compared with the module at C speed."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from functools import cache
from itertools import chain
from operator import call, is_, itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import (
    is_special,
    is_wrapper,
    weight_kind,
    weight_kind_and_version,
    without_overrides,
)
from fxcache.capture.loading import stored_elsewhere
from fxcache.runtime.identities import Containers, Modules
from fxcache.runtime.structure import (
    NOT_SETTINGS,
    bytes_of,
    is_callable_setting,
    own_tensors,
    strides_of,
    structure,
)

REGISTRIES = ("_modules", "_parameters", "_buffers")
NO_HOMES: Mapping[int, torch.device] = {}


class Snapshot:
    """The state of a module when the snapshot was taken.

    ``holds`` compares identities. If it returns False, new objects may still have equal values:
    ``agrees`` compares the values exactly, by ``structure``.
    """

    def __init__(
        self,
        module: nn.Module,
        homes: Mapping[int, torch.device] = NO_HOMES,
        volatile: Set[tuple[str, str]] = frozenset(),
    ):
        """Take a snapshot.

        Args:
            module: The module.
            homes: The device that each offloaded weight returns to, by id of the weight.
            volatile: Attributes that no graph depends on, and that submodules change when they run,
                each as (path of the submodule, name).
        """
        self._volatile = volatile
        visited: list[Any] = []
        self.structure = structure(module, homes, visited, volatile)
        self._modules = Modules(module)
        self._types = list(map(type, self._modules.all))
        attributes = self._modules.attributes
        self._num_attributes = list(map(len, attributes))
        names = defaultdict[str, set[str]](set)
        for path, name in volatile:
            names[path].add(name)
        paths = {id(vars(m)): path for path, m in module.named_modules()} if volatile else {}
        unread = (names[paths[id(own)]] if volatile else () for own in attributes)
        self._getters = list(map(settings_getter, attributes, unread))
        self._settings = list(self._settings_in(attributes))
        registries = (own[name] for own in attributes for name in REGISTRIES)
        self._arrays = [(v, data) for v in visited if (data := bytes_of(v))]
        arrays = {id(v) for v, _ in self._arrays}
        nested = (v for v in visited if not isinstance(v, Tensor) and id(v) not in arrays)
        self._containers = Containers(chain(registries, nested))
        stored = stored_elsewhere(module)
        weights = {id(t): t for m in self._modules.all for _, t in own_tensors(m, stored)}
        settings = {id(v): v for v in visited if isinstance(v, Tensor)}
        tensors = (weights | settings).values()
        self._inference = [t for t in tensors if t.is_inference()]  # these do not count writes
        self._tensors = [t for t in tensors if not t.is_inference()]
        # Graphs read their memory, which an assignment to ``.data`` replaces.
        self._aliased = [t for t in weights.values() if is_special(t) and not is_wrapper(t)]
        # The layouts of results follow those of the weights of convolutions.
        self._strided = [t for t in weights.values() if len(strides_of(t)) > 3]
        self._kinds = self._kinds_now(homes)

    def _settings_in(self, attributes: Sequence[Mapping[str, Any]]) -> Iterable[object]:
        """Return the settings and registries of all modules, a fixed number for each module."""
        return chain.from_iterable(map(call, self._getters, attributes))

    def _kinds_now(self, homes: Mapping[int, torch.device]) -> list[tuple[Any, ...]]:
        """Return kind, version and strides of each tensor; ``homes`` replaces devices."""
        with without_overrides():
            found: list[tuple[Any, ...]] = list(map(weight_kind_and_version, self._tensors))
            found.extend(map(weight_kind, self._inference))
            addresses = [t.data_ptr() for t in self._aliased]
            strides = list(map(Tensor.stride, self._strided))
        if homes:
            pairs = zip((*self._tensors, *self._inference), found, strict=True)
            found = [(*kind[:2], homes.get(id(t), kind[2]), *kind[3:]) for t, kind in pairs]
        return [*found, tuple(addresses), tuple(strides)]

    def holds(self, homes: Mapping[int, torch.device] = NO_HOMES) -> bool:
        """Return whether every object is in its place, and no tensor was written or converted.

        Args:
            homes: The device that each offloaded weight returns to, by id of the weight.
        """
        attributes = self._modules.attributes
        try:
            return (
                list(map(len, attributes)) == self._num_attributes
                and all(map(is_, self._settings_in(attributes), self._settings))
                and self._containers.hold()
                and all(bytes_of(array) == data for array, data in self._arrays)
                and all(map(is_, map(type, self._modules.all), self._types))
                and self._kinds_now(homes) == self._kinds
            )
        except KeyError:  # an attribute was deleted
            return False

    def agrees(self, other: "Snapshot") -> bool:
        """Return whether a graph that was captured at one snapshot is valid at the other."""
        if self._volatile:
            first, second = map(self._without_volatile, (self.structure, other.structure))
            return first == second
        return self.structure == other.structure

    def _without_volatile(self, structure: list[Any]) -> list[Any]:
        return [entry for entry in structure if entry[0] not in self._volatile]

    def written(self) -> bool:
        """Return whether a tensor was written in place since the snapshot or the last call."""
        now = self._kinds_now(NO_HOMES)
        found, self._kinds = now != self._kinds, now
        return found


@cache
def getter_of(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function from a dictionary to the tuple of its values with these names."""
    return itemgetter(*names)


def settings_getter(
    attributes: Mapping[str, Any], unread: Collection[str] = ()
) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function from a module's ``__dict__`` to its registries and settings.

    Args:
        attributes: The ``__dict__``.
        unread: The names of settings to leave out.
    """
    names = [n for n, v in attributes.items() if n not in NOT_SETTINGS and n not in unread]
    settings = (n for n in names if not is_callable_setting(attributes[n]))
    return getter_of((*REGISTRIES, *settings))
