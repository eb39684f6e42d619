"""The state objects of a call, and arguments that are built from new tensors."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from fxcache.effect import Place
from fxcache.objects import Part


@dataclass(frozen=True)
class State:
    """The state objects of a call.

    Attributes:
        tensors: The tensors in the state objects, except those that are also arguments.
        paths: The paths of ``tensors``.
        objects: The path in the arguments and the structure of each state object.
        containers: The caller's objects, lists, tuples and dicts, in the order of a ``Walk``.
        kept: The attributes of the model that count as state objects, and their structures.
        kept_tensors: The tensors in ``kept``, the last of ``tensors``.
        owners: The attributes of the submodule that has each of ``kept``.
        key: The key of the call without ``kept``.
    """

    tensors: tuple[Tensor, ...] = ()
    paths: tuple[str, ...] = ()
    objects: tuple[tuple[str, Part], ...] = ()
    containers: tuple[Any, ...] = ()
    kept: tuple[tuple[Place, Part], ...] = ()
    kept_tensors: tuple[Tensor, ...] = ()
    owners: Mapping[Place, dict[str, Any]] = field(default_factory=dict)
    key: Hashable = None

    def __bool__(self) -> bool:
        return bool(self.objects or self.kept)


class Rebuilt(NamedTuple):
    """Arguments of ``forward`` with new state objects.

    Attributes:
        args: The positional arguments.
        kwargs: The keyword arguments.
        objects: The new state objects by path.
        containers: The objects, lists, tuples and dicts in them, in the order of a ``Walk``.
        kept: The new values of attributes of the model.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    objects: dict[str, Any]
    containers: list[Any]
    kept: dict[Place, Any]

    def run(self, module: nn.Module, forward: Callable[..., Any] | None = None) -> Any:
        """Set the attributes of ``module``, which the caller restores, and call it.

        Args:
            module: The model.
            forward: The function to call in place of the module.
        """
        for place, value in self.kept.items():
            place.owner(module)[place.name] = value
        return (forward or module)(*self.args, **self.kwargs)
