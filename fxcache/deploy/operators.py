"""The operators that graphs of artifacts may use: an allow-list by kind."""

import operator
from typing import Any

import torch

from fxcache._torch import writes
from fxcache.deploy.fields import damaged
from fxcache.errors import ArtifactError

# Operators of ATen that reach beyond their arguments.
REFUSED = frozenset({"from_file", "_print", "_assert_async", "_functional_assert_async"})
PYTHON: dict[str, Any] = {
    f"operator.{name}": getattr(operator, name)
    for name in ("getitem", "add", "sub", "mul", "floordiv", "mod", "neg", "truediv")
}
PYTHON |= {
    f"torch.{name}": getattr(torch, name)
    for name in ("sym_min", "sym_max", "sym_float", "sym_int", "sym_not")
}
REGIONS = ("wrap_with_autocast", "wrap_with_set_grad_enabled", "flex_attention")
NAMES = {function: name for name, function in PYTHON.items()}


def name_of(target: Any) -> str:
    """Return the name of the operator ``target`` in artifacts.

    Raises:
        ArtifactError: Artifacts cannot use it.
    """
    name = NAMES.get(target) or str(target)
    region = f"higher_order.{getattr(target, '__name__', '')}"
    for candidate in (name, region):
        if is_allowed(candidate) and target_of(candidate, candidate) is target:
            return candidate
    raise ArtifactError(
        f"the operator {name} cannot be part of an artifact",
        where=name,
        remedy="leave out what calls it, such as custom kernels of the model's attention",
    )


def is_allowed(name: str) -> bool:
    """Return whether ``name`` has the form of an operator that artifacts may use."""
    parts = name.split(".")
    aten = len(parts) == 3 and parts[0] == "aten" and parts[1] not in REFUSED
    region = len(parts) == 2 and parts[0] == "higher_order" and parts[1] in REGIONS
    return name in PYTHON or aten or region


def target_of(name: str, where: str) -> Any:
    """Return the operator with this name.

    Raises:
        ArtifactError: Artifacts cannot use it, or this version of torch does not have it.
    """
    if name in PYTHON:
        return PYTHON[name]
    if not is_allowed(name):
        raise damaged(f"the operator {name[:80]!r} is not allowed", where)
    namespace, packet, *overload = name.split(".")
    target: Any = getattr(getattr(torch.ops, namespace), packet, None)
    for part in overload:
        target = getattr(target, part, None)
    if target is None or (overload and not isinstance(target, torch._ops.OpOverload)):
        raise damaged(f"torch {torch.__version__} has no operator {name[:80]!r}", where)
    if writes(target):
        raise damaged(f"the operator {name} writes to its arguments", where)
    return target
