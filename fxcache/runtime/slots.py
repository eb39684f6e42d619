"""The places of a model that hold functions: hooks, processors and replaced ``forward``."""

from collections.abc import Hashable
from itertools import compress
from types import MethodType
from typing import Any

from torch import nn

from fxcache._torch import hook_dicts, hooks_of
from fxcache.capture.weight_hooks import ACCELERATE_HOOK
from fxcache.runtime.content import Content, IdentityKey
from fxcache.runtime.identities import Modules
from fxcache.runtime.structure import NOT_SETTINGS, is_callable_setting

FORWARD = "forward"


class Tree(Modules):
    """The modules of a model, and the dictionaries that hold their hooks.

    Hooks of the model itself are excluded: they run around each call and are not captured.
    """

    def __init__(self, root: nn.Module):
        super().__init__(root)
        self.paths = [path for path, _ in root.named_modules()]
        places = [(i, hooks) for i, m in enumerate(self.all) if i for hooks in hook_dicts(m)]
        self._owners = [index for index, _ in places]
        self._hooks = [hooks for _, hooks in places]

    def hooked(self) -> tuple[int, ...]:
        """Return the indices of the modules on which hooks are registered."""
        return tuple(dict.fromkeys(compress(self._owners, self._hooks)))

    def hooks_key(self, index: int) -> Hashable:
        """Return the content of the hooks registered on module ``index``; None if it has none."""
        hooks = hooks_of(self.module(index))
        return (self.paths[index], Content(hooks).key) if hooks else None

    def hook_identities(self, index: int) -> tuple[IdentityKey, ...]:
        """Return the functions that are registered as hooks on module ``index``."""
        return tuple(IdentityKey(hook) for _, hook, *_ in hooks_of(self.module(index)))

    def slots(self, index: int) -> list["Slot"]:
        """Return the callable attributes of module ``index``, without the model's ``forward``."""
        return [
            Slot(self, index, name)
            for name, value in vars(self.module(index)).items()
            if (name == FORWARD and index)
            or (name not in NOT_SETTINGS and is_callable_setting(value))
        ]


class Slot:
    """A callable attribute of a module, as it was when the slot was made.

    Attributes:
        index: The index of the module in ``tree``.
        value: The value of the attribute.
        plain: Whether it is a ``forward`` that is only the method of the class. diffusers and
            accelerate leave it on the module when they remove their hooks.
        volatile: Whether its content can change while no container changes. Hooks count as
            volatile, because other objects may switch them on and off.
    """

    __slots__ = (
        *("_tree", "containers", "index", "key", "name"),
        *("plain", "value", "volatile"),
    )

    def __init__(self, tree: Tree, index: int, name: str):
        self._tree, self.index, self.name = tree, index, name
        self.value = self.attributes.get(name)
        self.plain = name == FORWARD and is_class_forward(self.value, tree.module(index))
        content = self._content()
        self.key = self._key_of(content)
        self.containers = content.containers
        self.volatile = content.volatile or (name == FORWARD and not self.plain)

    @property
    def attributes(self) -> dict[str, Any]:
        """The module's ``__dict__``."""
        return vars(self._tree.module(self.index))

    def key_now(self) -> Hashable:
        """Return the key of the value's current content."""
        return self._key_of(self._content())

    def _key_of(self, content: Content) -> Hashable:
        return (self._tree.paths[self.index], self.name, content.key)

    def _content(self) -> Content:
        if self.name != FORWARD:
            return Content(self.value)
        if self.plain:
            return Content(None)
        return Content((self.value, self.attributes.get(ACCELERATE_HOOK)))


def is_class_forward(value: object, module: nn.Module) -> bool:
    """Return whether ``value`` is the bound method that ``module.forward`` is without hooks."""
    return (
        isinstance(value, MethodType)
        and value.__self__ is module
        and value.__func__ is type(module).forward
    )
