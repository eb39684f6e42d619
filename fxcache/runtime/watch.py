"""What may change under a captured graph: submodules, their settings, hooks, weights' kinds."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import hooks_of, version_of
from fxcache.program import OURS

PLAIN = (int, float, str, bool, bytes, type(None), complex)
# nn.Module's own bookkeeping; weights and hooks are looked at separately.
INTERNALS = frozenset(vars(nn.Module())) - {"training"}


class Same:
    """Equal only to a Same of the very same object, which it keeps alive."""

    __slots__ = ("held",)

    def __init__(self, held: object):
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)


def structure(module: nn.Module, homes: Mapping[int, torch.device] | None = None) -> list[Any]:
    """Everything besides the weights' values that the captured graph was derived from.

    Equal before and after exactly when no submodule was replaced (LoRA), no setting changed
    (FreeU, attention processors, LoRA scales, train mode), no hook was set, and no weight changed
    its shape, dtype or device. Values may change: the graph reads the module's own tensors.
    ``homes``: by id of the weights that wait elsewhere, the devices where they belong.
    """
    seen: list[Any] = []
    first: dict[int, int] = {}  # which weights are one tensor under several names
    for path, submodule in module.named_modules():
        if path:
            seen.append((path, Same(submodule), Same(type(submodule))))
            seen.extend(map(Same, hooks_of(submodule)))
        seen.extend(settings(submodule))
        for name, weight in own_tensors(submodule):
            number = first.setdefault(id(weight), len(first))
            device = (homes or {}).get(id(weight), weight.device)
            seen.append((name, number, weight.shape, weight.dtype, device))
    return seen


def settings(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The module's own attributes, reduced to what can be compared."""
    for name, value in vars(module).items():
        if name not in INTERNALS and name != OURS:
            yield name, reduced(value)


def reduced(value: Any, depth: int = 3) -> Any:
    """Plain values as they are, containers by content, objects by identity and their attributes."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor):
        return (Same(value), version_of(value))
    if depth == 0 or isinstance(value, nn.Module | type):
        return Same(value)
    if isinstance(value, set | frozenset | deque):
        return [Same(item) for item in value]
    if isinstance(value, list | tuple):
        return [reduced(v, depth - 1) for v in value]
    if isinstance(value, dict):
        return {str(k): reduced(v, depth - 1) for k, v in value.items()}
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict) and attributes:
        return (Same(value), {k: reduced(v, depth - 1) for k, v in attributes.items()})
    return Same(value)


def weights(module: nn.Module) -> list[tuple[Same, int]]:
    """The weights and how often each was written: equal as long as no value changed."""
    return [
        (Same(tensor), version_of(tensor))
        for submodule in module.modules()
        for _, tensor in own_tensors(submodule)
    ]


def own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)


def live_weights(module: nn.Module, captured: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors that ``module`` holds now under the names of ``captured``, else those."""
    return {name: live_weight(module, name, then) for name, then in captured.items()}


def live_weight(module: nn.Module, name: str, then: Any) -> Any:
    owner_path, _, leaf = name.rpartition(".")
    try:
        now = getattr(module.get_submodule(owner_path), leaf, None)
    except AttributeError:  # a constant that torch.export lifted
        return then
    return now if isinstance(now, Tensor) else then
