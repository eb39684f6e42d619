"""Gathers sharded weights inside a trace, so that the graph gathers them where the model would."""

from collections.abc import Iterator
from functools import partial

from torch import Tensor, nn

from fxcache._torch import (
    ShardedUnit,
    dtensor_from,
    is_dtensor,
    is_wrapped,
    local_part,
    sharded_unit,
)
from fxcache.call import Call
from fxcache.capture.weight_hooks import StoredWeight, own_tensors
from fxcache.errors import CaptureError


def units_below(root: nn.Module) -> Iterator[tuple[nn.Module, ShardedUnit]]:
    """Yield the submodules of ``root`` that FSDP gathers one by one. ``root`` is left out."""
    for module in root.modules():
        unit = None if module is root else sharded_unit(module)
        if unit is not None:
            yield module, unit


def gathered_by(unit: ShardedUnit) -> list[StoredWeight]:
    """Return the weights that ``unit`` gathers before its forward."""
    return [
        StoredWeight(owner, name, local_part(parameter.sharded), gather=parameter.gather)
        for parameter in unit.parameters
        for owner, name in parameter.owners
    ]


def split_weights(root: nn.Module) -> list[StoredWeight]:
    """Return the DTensors among the weights below ``root`` that FSDP does not gather."""
    gathered = {
        (id(owner), name)
        for _, unit in units_below(root)
        for parameter in unit.parameters
        for owner, name in parameter.owners
    }
    return [
        StoredWeight(owner, name, local_part(tensor), gather=partial(dtensor_from, like=tensor))
        for owner in root.modules()
        for name, tensor in own_tensors(owner).items()
        if is_dtensor(tensor) and (id(owner), name) not in gathered
    ]


def sharded_parts(root: nn.Module) -> dict[tuple[int, str], Tensor]:
    """Return the parts of sharded weights below ``root`` that this process holds.

    Returns:
        Each part, by the id of the module that has the weight and its name there.
    """
    found = [w for _, unit in units_below(root) for w in gathered_by(unit)]
    pairs = ((weight, weight.tensor) for weight in (*found, *split_weights(root)))
    return {(id(w.owner), w.name): part for w, part in pairs if part is not None}


def require_no_wrappers(root: nn.Module) -> None:
    """Raise CaptureError if FSDP 1 wraps the model or a submodule: no trace can gather for it."""
    for path, module in root.named_modules():
        if is_wrapped(module):
            raise CaptureError(
                "FullyShardedDataParallel wraps a part of the model",
                where=path or type(root).__name__,
                remedy="use fully_shard (FSDP2) instead",
            )


def require_supported(module: nn.Module, unit: ShardedUnit) -> None:
    """Raise CaptureError if a graph cannot do what FSDP does around ``module``."""
    if unit.unsupported:
        raise CaptureError(
            f"fully_shard was called on {type(module).__name__}, and {unit.unsupported}",
            where=type(module).__name__,
            remedy="call fully_shard on the whole model only, or on each block alone, without "
            "other kinds of parallelism",
        )


def require_tensor_timestep(root: nn.Module, call: Call) -> None:
    """Raise CaptureError if the timestep of a sharded model is a Python number."""
    if not call.is_bound and sharded_parts(root):
        raise CaptureError(
            f"{call.timestep_name} is a Python number, and several processes share the model",
            where=f"{type(root).__name__}.forward, {call.timestep_name}={call.number}",
            remedy="pass the timestep as a tensor, such as an element of the noise scheduler's",
        )


def gathers_sizes(root: nn.Module) -> bool:
    """Return whether diffusers' context parallelism lets processes exchange sizes at each call."""
    config = getattr(vars(root).get("_parallel_config"), "context_parallel_config", None)
    return any(getattr(config, f"{kind}_anything", False) for kind in ("ulysses", "ring"))


def is_shared(root: nn.Module) -> bool:
    """Return whether several processes share the model, so that its calls exchange data."""
    return vars(root).get("_parallel_config") is not None or bool(sharded_parts(root))
