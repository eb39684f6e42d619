"""Flattens the arguments of a call: tensors with paths and roles, state objects, and a key."""

from collections.abc import Hashable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from fxcache.call import Call
from fxcache.contents import PLAIN
from fxcache.errors import CaptureError
from fxcache.form import Key, autocast_dtype
from fxcache.leaves import leaves
from fxcache.objects import Walk
from fxcache.program import Role
from fxcache.state import State


class Flattening:
    """The leaves of a call's arguments, sorted by what they are.

    Args:
        timestep_name: The name of the timestep. The value of a number there is not part of the key.
        dynamic: The dimensions whose sizes may vary, by the path of the input.
        key: The first parts of the key.
    """

    def __init__(
        self, timestep_name: str, dynamic: Mapping[str, frozenset[int]], key: Sequence[Hashable]
    ):
        self.paths: list[str] = []
        self.roles: list[Role] = []
        self.tensors: list[Tensor] = []
        self.key = list(key)
        self._objects: list[tuple[str, Any]] = []
        self._timestep_name, self._dynamic = timestep_name, dynamic

    def add(self, name: str, argument: Any, role: Role) -> None:
        """Add the leaves of one argument."""
        self.key.append((name, type(argument)))  # an empty dict has no leaves, but is not None
        flat = ((name, argument),) if isinstance(argument, Tensor) else leaves(argument, name)
        for path, leaf in flat:
            if isinstance(leaf, Tensor):
                self._add_tensor(path, leaf, role)
            elif path == self._timestep_name and isinstance(leaf, Real):
                continue
            elif not isinstance(leaf, PLAIN):
                self._objects.append((path, leaf))
            else:
                self.key.append((path, type(leaf), exact(leaf)))

    def add_state(self) -> State:
        """Add the tensors in state objects, after all arguments, and return the state."""
        if not self._objects:
            self.key.append(())
            return State()
        walk = Walk(list(self.tensors))
        objects = tuple((path, walk.part(value, path)) for path, value in self._objects)
        new = tuple(walk.tensors[len(self.tensors) :])
        for path, tensor in zip(walk.paths, new, strict=True):
            self._add_tensor(path, tensor, Role.STATE)
        self.key.append(objects)
        return State(new, tuple(walk.paths), objects, tuple(walk.containers))

    def tensors_of(self, role: Role) -> tuple[Tensor, ...]:
        """The tensors that have this role."""
        return tuple(t for t, r in zip(self.tensors, self.roles, strict=True) if r is role)

    def _add_tensor(self, path: str, tensor: Tensor, role: Role) -> None:
        """Add a tensor. In the key, a size that may vary is None."""
        if tensor.is_nested:
            raise CaptureError(
                f"{path} is a nested tensor, whose rows differ in size",
                where=path,
                remedy="pad the rows to one size: torch.nested.to_padded_tensor",
            )
        if tensor.layout is not torch.strided:
            raise CaptureError(
                f"{path} is a tensor of the layout {tensor.layout}, which has no strides",
                where=path,
                remedy="pass a dense tensor: to_dense()",
            )
        self.paths.append(path)
        self.roles.append(role)
        self.tensors.append(tensor)
        dims = self._dynamic.get(path)
        shape: Sequence[int | None] = tensor.shape
        if dims:
            shape = tuple(None if d in dims else size for d, size in enumerate(tensor.shape))
        self.key.append((path, shape, tensor.dtype, tensor.device))


def exact(constant: Any) -> Hashable:
    """Return a value that differs from that of another constant; 0.0 equals -0.0."""
    return "-0.0" if type(constant) is float and repr(constant) == "-0.0" else constant


def flattened(
    arguments: dict[str, Any],
    num_positional: int,
    latent: Tensor,
    latent_name: str,
    timestep_name: str,
    dynamic: Mapping[str, frozenset[int]],
) -> Call:
    """The call with these arguments.

    Args:
        arguments: The arguments by name, without those that equal their defaults.
        num_positional: How many of the arguments, from the first, are passed by position.
        latent: The latent, or its first tensor.
        latent_name: The name of the argument that is the latent.
        timestep_name: The name of the argument that is the timestep; empty if there is none.
        dynamic: The dimensions whose sizes may vary, by the path of the input.

    Raises:
        CaptureError: An argument is neither a constant nor a state object.
    """
    roles = {timestep_name: Role.TIMESTEP, latent_name: Role.LATENT}
    key = (autocast_dtype(latent.device.type), num_positional)
    flat = Flattening(timestep_name, dynamic, key)
    for name, argument in arguments.items():
        flat.add(name, argument, roles.get(name, Role.CONDITIONING))
    state = flat.add_state()
    return Call(
        arguments,
        num_positional,
        tuple(flat.paths),
        tuple(flat.roles),
        tuple(flat.tensors),
        flat.tensors_of(Role.CONDITIONING),
        state,
        latent,
        latent_name,
        arguments.get(timestep_name),
        timestep_name,
        Key(tuple(flat.key)),
    )
