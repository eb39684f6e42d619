"""Access to models that several processes share: DTensors, FSDP and collectives."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = [
    "ShardedParameter",
    "ShardedUnit",
    "dtensor_from",
    "dtensors_as_operators",
    "greatest_of",
    "is_collective",
    "is_dtensor",
    "is_fully_sharded",
    "local_part",
    "sharded_unit",
]

NAMESPACES = frozenset({"_c10d_functional", "_c10d_functional_autograd", "c10d", "_dtensor"})


def is_collective(op: object) -> bool:
    """Return whether ``op`` exchanges data with other processes, or waits for such an exchange.

    Why: these operators have no public names.
    """
    return getattr(op, "namespace", "") in NAMESPACES


def is_dtensor(value: object) -> bool:
    """Return whether ``value`` is a DTensor: a tensor that several processes share.

    Why: there is no DTensor unless its package is imported, and importing it takes time.
    """
    package = sys.modules.get("torch.distributed.tensor")
    return package is not None and isinstance(value, package.DTensor)


def local_part(tensor: Any) -> Tensor:
    """Return the part of a DTensor that this process holds: the same object each time.

    Why: ``to_local`` returns a new tensor each time, and captures identify tensors by identity.
    """
    return tensor._local_tensor


def dtensor_from(local: Tensor, like: Any) -> Tensor:
    """Return a DTensor like ``like``, with ``local`` as the part of this process.

    Why: ``from_local`` takes the shape of the whole from ``local`` and adds operations to a trace.
    """
    return type(like)(local, like._spec, requires_grad=False)


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
        from torch.distributed.tensor import DTensor, Replicate  # noqa: PLC0415, imported already

        local = local.to(moved_to) if moved_to else local
        local = local.to(dtype) if dtype and local.is_floating_point() else local
        whole = spec.tensor_meta._replace(dtype=local.dtype)
        placed: Any = DTensor(local, replace(spec, tensor_meta=whole), requires_grad=False)
        everywhere = [Replicate()] * spec.mesh.ndim
        return placed.redistribute(placements=everywhere).to_local()

    return ShardedParameter([(info.module, info.param_name), *shared], whole, gather)


@contextlib.contextmanager
def dtensors_as_operators() -> Iterator[None]:
    """Traces operations on DTensors as the operations and collectives that they consist of.

    Why: torch.export records the construction of a DTensor as a call that no graph can hold, and
    records an operator before a DTensor can replace it.
    """
    from torch._export import wrappers  # noqa: PLC0415, only traces of DTensors need it

    any_wrappers: Any = wrappers
    before = any_wrappers._maybe_find_pre_dispatch_tf_mode_for_export
    any_wrappers._maybe_find_pre_dispatch_tf_mode_for_export = lambda: None
    try:
        with Desugared():
            yield
    finally:
        any_wrappers._maybe_find_pre_dispatch_tf_mode_for_export = before


class Desugared(TorchFunctionMode):
    """Runs functions of DTensors without the tracer, and the operators on their parts with it."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if not any(map(is_dtensor, tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        included = torch._C._dispatch_tls_local_include_set()
        excluded = torch._C._dispatch_tls_local_exclude_set()
        tracer = torch._C.DispatchKey.PreDispatch
        untraced = torch._C._ForceDispatchKeyGuard(included.remove(tracer), excluded.add(tracer))
        with untraced, OnParts(included, excluded):
            return func(*args, **kwargs)


class OnParts(TorchDispatchMode):
    """Traces operators on plain tensors again; those on DTensors reach the DTensor itself."""

    def __init__(self, included: Any, excluded: Any) -> None:
        super().__init__()
        self._keys = included, excluded

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if any(map(is_dtensor, tree_leaves((args, kwargs)))):
            return NotImplemented
        with torch._C._ForceDispatchKeyGuard(*self._keys):
            return func(*args, **kwargs)


def greatest_of(numbers: Sequence[int], groups: Sequence[str], device: torch.device) -> list[int]:
    """Return the greatest value of each number on all processes of these groups.

    Processes outside of one group may be in another: the groups are asked one after the other.

    Args:
        numbers: The numbers of this process. Other processes pass as many.
        groups: The names of process groups, as graphs contain them.
        device: The device of the model. It is not waited for if a group can use the CPU.

    Why: a graph names its process groups, and only a private function finds a group by its name.
    """
    import torch.distributed as dist  # noqa: PLC0415, only graphs with collectives need it

    for name in groups:
        group: Any = torch._C._distributed_c10d._resolve_process_group(name)
        on_cpu = "cpu" in {place.type for place in group._device_types}
        found = torch.tensor(numbers, device="cpu" if on_cpu else device)
        dist.all_reduce(found, dist.ReduceOp.MAX, group)
        numbers = found.tolist()
    return list(numbers)
