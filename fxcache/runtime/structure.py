"""What a capture was derived from: submodules, their settings, the kinds of their weights."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import version_of
from fxcache.program import OURS
from fxcache.runtime.content import IdentityKey

PLAIN = (int, float, str, bool, bytes, type(None), complex)
# nn.Module's own bookkeeping; weights and hooks are compared separately.
INTERNALS = frozenset(vars(nn.Module())) - {"training"}
# What diffusers, accelerate and module.compile() set on a module that they hook. It is compared at
# each call, as part of the hooks.
HOOK_ATTRIBUTES = frozenset(
    {"forward", "_old_forward", "_hf_hook", "_diffusers_hook", "_compiled_call_impl"}
)
NOT_SETTINGS = INTERNALS | HOOK_ATTRIBUTES | {OURS}
MAX_DEPTH = 3  # of containers and objects within one another


def structure(
    module: nn.Module,
    homes: Mapping[int, torch.device] | None = None,
    visited: list[Any] | None = None,
) -> list[Any]:
    """Everything besides hooks and the weights' values that a captured graph was derived from.

    Equal before and after exactly when no submodule was replaced (LoRA), no setting changed (FreeU,
    LoRA scales, train mode), and no weight changed its shape, dtype or device. Values may change:
    the graph reads the module's own tensors.

    Args:
        module: the model.
        homes: by id of each offloaded weight, the device where it belongs.
        visited: receives the containers and the tensors, among the settings, that were compared.
    """
    found: list[Any] = []
    visited = [] if visited is None else visited
    first: dict[int, int] = {}  # which weights are one tensor under several names
    for path, submodule in module.named_modules():
        if path:
            found.append((path, IdentityKey(submodule), IdentityKey(type(submodule))))
        for name, value in settings(submodule):
            found.append((name, reduced(value, visited)))
        for name, weight in own_tensors(submodule):
            number = first.setdefault(id(weight), len(first))
            device = (homes or {}).get(id(weight), weight.device)
            found.append((name, number, weight.shape, weight.dtype, device))
    return found


def settings(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The module's own attributes that are neither weights, nor submodules, nor hooks."""
    for name, value in vars(module).items():
        if name not in NOT_SETTINGS and not is_callable_setting(value):
            yield name, value


def is_callable_setting(value: object) -> bool:
    """Whether ``value`` is called by its module (attention processors, activation functions).

    Such values are compared at each call, as hooks are.
    """
    return callable(value) and not isinstance(value, nn.Module | type)


def reduced(value: Any, visited: list[Any], depth: int = MAX_DEPTH) -> Any:
    """Plain values as they are, containers by content, objects by identity and attributes."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor):
        visited.append(value)
        return (IdentityKey(value), version_of(value))
    if depth == 0 or isinstance(value, nn.Module | type):
        return IdentityKey(value)
    if isinstance(value, set | frozenset | deque):
        visited.append(value)
        return [IdentityKey(item) for item in value]
    if isinstance(value, list | tuple):
        visited.append(value)
        return [reduced(v, visited, depth - 1) for v in value]
    if isinstance(value, dict):
        visited.append(value)
        return {str(k): reduced(v, visited, depth - 1) for k, v in value.items()}
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        visited.append(attributes)
        return (
            IdentityKey(value),
            {k: reduced(v, visited, depth - 1) for k, v in attributes.items()},
        )
    return IdentityKey(value)


def weights(module: nn.Module) -> list[tuple[IdentityKey, int]]:
    """The weights and how often each was written: equal as long as no value changed."""
    return [
        (IdentityKey(tensor), version_of(tensor))
        for submodule in module.modules()
        for _, tensor in own_tensors(submodule)
    ]


def own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of ``module`` itself, by name."""
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)


def live_weights(module: nn.Module, captured: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors that ``module`` holds now under the names of ``captured``, else those."""
    return {name: live_weight(module, name, then) for name, then in captured.items()}


def live_weight(module: nn.Module, name: str, then: Any) -> Any:
    """The tensor that ``module`` holds now under ``name``; ``then`` where it holds none."""
    owner_path, _, leaf = name.rpartition(".")
    try:
        now = getattr(module.get_submodule(owner_path), leaf, None)
    except AttributeError:  # a constant that torch.export lifted
        return then
    return now if isinstance(now, Tensor) else then
