"""Access to what FSDP (``fully_shard``) does around the forward of a module."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

__all__ = ["ShardedParameter", "ShardedUnit", "is_fully_sharded", "is_wrapped", "sharded_unit"]


class ShardedParameter(NamedTuple):
    """A parameter that FSDP shards.

    Attributes:
        owners: The modules that have it, with its name in each.
        sharded: The sharded parameter, a DTensor.
        gather: Takes the part of this process, and returns the whole parameter as FSDP would.
    """

    owners: Sequence[tuple[nn.Module, str]]
    sharded: Any
    gather: Callable[[Tensor], Tensor]


class ShardedUnit(NamedTuple):
    """A module whose parameters FSDP gathers before its forward, and frees afterwards.

    Attributes:
        parameters: The parameters.
        places: For each hook of FSDP on the module: the dictionary that holds it, its key, and
            whether it runs before ``forward``.
        input_dtype: The dtype that floating-point inputs are cast to; None if they are not.
        output_dtype: As ``input_dtype``, for the results.
        unsupported: Why a graph cannot do what FSDP does here; empty if it can.
    """

    parameters: Sequence[ShardedParameter]
    places: Sequence[tuple[dict[int, Any], int, bool]]
    input_dtype: torch.dtype | None
    output_dtype: torch.dtype | None
    unsupported: str

    def cast_inputs(self, inputs: Any) -> Any:
        """Return the arguments as FSDP passes them to ``forward``."""
        return cast(inputs, self.input_dtype)

    def cast_outputs(self, outputs: Any) -> Any:
        """Return the results of ``forward`` as FSDP passes them on."""
        return cast(outputs, self.output_dtype)


def cast(values: Any, dtype: torch.dtype | None) -> Any:
    """Return ``values`` with all floating-point tensors in ``dtype``; None to cast nothing."""
    if dtype is None:
        return values

    def in_dtype(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return tree_map_only(Tensor, in_dtype, values)


def is_fully_sharded(module: nn.Module) -> bool:
    """Return whether ``fully_shard`` was called on ``module``.

    Why: ``FSDPModule`` is public, but its package takes time to import.
    """
    package = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(package, "FSDPModule", None)
    return kind is not None and isinstance(module, kind)


def is_wrapped(module: nn.Module) -> bool:
    """Return whether ``module`` is a wrapper of FSDP 1, ``FullyShardedDataParallel``.

    Why: as for ``is_fully_sharded``.
    """
    package = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(package, "FullyShardedDataParallel", None)
    return kind is not None and isinstance(module, kind)


def sharded_unit(module: nn.Module) -> ShardedUnit | None:
    """Return what FSDP does around the forward of ``module``; None if it does nothing.

    Why: FSDP's hooks swap parameters and start collectives, which no trace can record. What they
    do is only in private attributes.
    """
    if not is_fully_sharded(module):
        return None
    any_module: Any = module
    state = any_module._get_fsdp_state()
    policy = state._mp_policy
    groups = getattr(state, "_fsdp_param_groups", None)
    if groups is None:  # torch 2.11
        groups = [state._fsdp_param_group] if state._fsdp_param_group else []
    sharded = [parameter for group in groups for parameter in group.fsdp_params]
    places = [
        (hooks, key, before)
        for hooks, before in ((module._forward_pre_hooks, True), (module._forward_hooks, False))
        for key, hook in hooks.items()
        if getattr(hook, "__self__", None) is state
    ]
    unsupported = "; ".join(dict.fromkeys(filter(None, map(why_unsupported, sharded))))
    if len(state._modules if hasattr(state, "_modules") else ()) > 1:
        unsupported = "several modules share one group of parameters"
    return ShardedUnit(
        [sharded_parameter(parameter) for parameter in sharded],
        places,
        policy.param_dtype if policy.cast_forward_inputs else None,
        policy.output_dtype,
        unsupported if len(places) == 2 else "its hooks are not those that fully_shard sets",
    )


def why_unsupported(parameter: Any) -> str:
    """Return why a graph cannot gather a parameter of FSDP; empty if it can."""
    if parameter.is_dtensor:
        return "FSDP shards parameters that tensor parallelism has split"
    if hasattr(parameter._sharded_local_tensor, "fsdp_pre_all_gather"):
        return "FSDP gathers parameters of a special kind"
    return ""


def sharded_parameter(parameter: Any) -> ShardedParameter:
    """Return one of FSDP's own parameters in the form of this module."""
    info, whole = parameter._module_info, parameter.sharded_param
    shared = zip(info.shared_modules, info.shared_param_names, strict=True)
    spec, dtype = whole._spec, parameter.mp_policy.param_dtype
    moved_to = parameter.device if parameter.offload_to_cpu else None

    def gather(local: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor, Replicate

        local = local.to(moved_to) if moved_to else local
        local = local.to(dtype) if dtype and local.is_floating_point() else local
        whole = spec.tensor_meta._replace(dtype=local.dtype)
        placed: Any = DTensor(local, replace(spec, tensor_meta=whole), requires_grad=False)
        everywhere = [Replicate()] * spec.mesh.ndim
        return placed.redistribute(placements=everywhere).to_local()

    return ShardedParameter([(info.module, info.param_name), *shared], whole, gather)
