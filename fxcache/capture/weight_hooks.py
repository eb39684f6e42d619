"""Reads which weights the hooks of accelerate and diffusers move or cast for each call.

Such a hook keeps the weights of a submodule on another device, or in another dtype, and loads them
when the submodule runs. The libraries are not imported: their hooks are known by name.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fxcache.errors import CaptureError

# The attributes in which the forward of a hooked module finds its hooks.
ACCELERATE_HOOK, DIFFUSERS_HOOKS = "_hf_hook", "_diffusers_hook"


class StoredWeight(NamedTuple):
    """A weight that a hook loads before a submodule runs.

    Attributes:
        owner: The module that has the weight.
        name: The name of the weight in ``owner``.
        tensor: The stored tensor, if it is not the one in ``owner``.
        device: The device that it is loaded to; None if it is not moved.
        dtype: The dtype that it is cast to; None if it is not cast.
        gather: Makes the weight of ``tensor``, the part of it that this process holds; None if
            each process holds the whole weight.
    """

    owner: nn.Module
    name: str
    tensor: Tensor | None = None
    device: torch.device | None = None
    dtype: torch.dtype | None = None
    gather: Callable[[Tensor], Tensor] | None = None

    def loaded(self, tensor: Tensor) -> Tensor:
        """Return ``tensor``, which has the values of the weight, as the hook would load it."""
        if self.device is not None:
            tensor = tensor.to(self.device)
        if self.dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(self.dtype)
        return tensor if self.gather is None else self.gather(tensor)


def hooks_that_load(module: nn.Module) -> dict[Any, list[StoredWeight]]:
    """Return the hooks of ``module`` itself that do nothing but load weights.

    Returns:
        The weights that each hook loads.

    Raises:
        CaptureError: A hook loads its weights from a file.
    """
    found: dict[Any, list[StoredWeight]] = {}
    own = vars(module)
    if ACCELERATE_HOOK in own:
        parts = parts_of(own[ACCELERATE_HOOK])
        if all(only_loads_weights(type(part)) for part in parts):
            found[own[ACCELERATE_HOOK]] = [w for p in parts for w in loads(p, module)]
    for hook in getattr(own.get(DIFFUSERS_HOOKS), "hooks", {}).values():
        if only_loads_weights(type(hook)):
            found[hook] = list(loads(hook, module))
    return found


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of ``module`` itself by name."""
    tensors = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def parts_of(hook: Any) -> list[Any]:
    """Return the hooks that a hook of accelerate consists of."""
    return [part for inner in hook.hooks for part in parts_of(inner)] if is_chain(hook) else [hook]


def is_chain(hook: object) -> bool:
    """Return whether ``hook`` is a chain of other hooks of accelerate."""
    return name_of(type(hook)) == "accelerate.SequentialHook"


def only_loads_weights(kind: type) -> bool:
    """Return whether ``kind`` is a class of hooks that do nothing but load weights."""
    return kind.__name__.endswith("Hook") and name_of(kind) in LOADS


def only_handles_weights(kind: type) -> bool:
    """Return whether ``kind`` is a class whose hooks only load weights, or gather them for FSDP."""
    return only_loads_weights(kind) or name_of(kind) == "torch.FSDPState"


def name_of(kind: type) -> str:
    """Return the package and the name of the class ``kind``."""
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def loads(hook: Any, module: nn.Module) -> Iterator[StoredWeight]:
    """Yield the weights that a known hook of ``module`` loads."""
    return LOADS[name_of(type(hook))](hook, module)


def nothing(_hook: Any, _module: nn.Module) -> Iterator[StoredWeight]:
    return iter(())


def by_accelerate(hook: Any, module: nn.Module) -> Iterator[StoredWeight]:
    """Yield what sequential offloading loads: weights that their modules have on ``meta``."""
    if not hook.offload:
        return
    for path in hook.original_devices:
        owner, name = owner_of(module, path)
        if name in owner._buffers and not hook.offload_buffers:
            continue
        tensor = hook.weights_map[path]
        if tensor is not hook.weights_map[path]:
            raise from_file(module, path)
        yield StoredWeight(owner, name, tensor, torch.device(hook.execution_device))


def by_casting(hook: Any, module: nn.Module) -> Iterator[StoredWeight]:
    """Yield what layerwise casting loads: all weights of a module, in the compute dtype."""
    for owner in module.modules():
        for name in own_tensors(owner):
            yield StoredWeight(owner, name, dtype=hook.compute_dtype)


def by_group(hook: Any, module: nn.Module) -> Iterator[StoredWeight]:
    """Yield what group offloading loads for ``module``: its own part of the group.

    With streams, the group keeps a copy in pinned memory. It loads from that copy, while the
    weights of the module may be on the device already.
    """
    group = hook.group
    alone = [*group.parameters, *group.buffers] if group.offload_leader is module else []
    wanted = set(map(id, alone))
    for owner in module.modules():
        for name, tensor in own_tensors(owner).items():
            if module not in group.modules and id(tensor) not in wanted:
                continue
            if group.offload_to_disk_path is not None:
                raise from_file(module, name)
            stored = group.cpu_param_dict.get(tensor)
            yield StoredWeight(owner, name, stored, torch.device(group.onload_device))


LOADS: dict[str, Callable[[Any, nn.Module], Iterator[StoredWeight]]] = {
    "accelerate.AlignDevicesHook": by_accelerate,
    "diffusers.LayerwiseCastingHook": by_casting,
    "diffusers.GroupOffloadingHook": by_group,
    # These record in which order the groups run.
    "diffusers.LazyPrefetchGroupOffloadingHook": nothing,
    "diffusers.LayerExecutionTrackerHook": nothing,
}


def owner_of(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the module that has the weight at ``path`` below ``module``, and its name there."""
    parent, _, name = path.rpartition(".")
    return module.get_submodule(parent), name


def from_file(module: nn.Module, name: str) -> CaptureError:
    return CaptureError(
        f"a hook loads weights of {type(module).__name__} from a file at each call",
        where=name,
        remedy="keep the weights in memory: set no folder for offloading",
    )
