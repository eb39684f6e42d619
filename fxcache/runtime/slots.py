"""Where a model keeps what its modules call: hooks, processors, a ``forward`` of their own."""

from collections.abc import Hashable
from itertools import compress
from types import MethodType
from typing import Any

from torch import nn

from fxcache._torch import hook_dicts, hooks_of
from fxcache.runtime.content import Content, IdentityKey
from fxcache.runtime.identities import Modules
from fxcache.runtime.structure import NOT_SETTINGS, is_callable_setting

FORWARD = "forward"
ACCELERATE_HOOK = "_hf_hook"  # accelerate's forward looks its hook up there


class Tree(Modules):
    """The modules of a model, and where hooks on them are kept.

    The hooks of the model itself are left out: they run around each call and are not captured.
    """

    def __init__(self, root: nn.Module):
        super().__init__(root)
        self.paths = [path for path, _ in root.named_modules()]
        places = [(i, hooks) for i, m in enumerate(self.all) if i for hooks in hook_dicts(m)]
        self._owners = [index for index, _ in places]
        self._hooks = [hooks for _, hooks in places]

    def hooked(self) -> tuple[int, ...]:
        """The numbers of the modules on which hooks are registered."""
        return tuple(dict.fromkeys(compress(self._owners, self._hooks)))

    def hooks_key(self, index: int) -> Hashable:
        """The content of the hooks registered on module ``index``; None if there are none."""
        hooks = hooks_of(self.module(index))
        return (self.paths[index], Content(hooks).key) if hooks else None

    def hook_identities(self, index: int) -> tuple[IdentityKey, ...]:
        """The functions registered as hooks on module ``index``."""
        return tuple(IdentityKey(hook) for _, hook, *_ in hooks_of(self.module(index)))

    def slots(self, index: int) -> list["Slot"]:
        """The callable attributes of module ``index``. The model's own ``forward`` is none."""
        return [
            Slot(self, index, name)
            for name, value in vars(self.module(index)).items()
            if (name == FORWARD and index)
            or (name not in NOT_SETTINGS and is_callable_setting(value))
        ]


class Slot:
    """A callable attribute of a module, as it was when the slot was made.

    Attributes:
        index: the number of the module in ``tree``.
        value: what the attribute held.
        plain: whether it is a ``forward`` that is only the class's own. diffusers and accelerate
            leave it on the module when they remove their hooks.
        volatile: whether its content can change while every container looks the same. Hooks count
            as volatile: they may be switched on and off by what they refer to.
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
        """The key, with the content of the value read again."""
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
    """Whether ``value`` is the bound method that ``module.forward`` gives without hooks."""
    return (
        isinstance(value, MethodType)
        and value.__self__ is module
        and value.__func__ is type(module).forward
    )
