"""Tells what operators do: write to arguments, return views of them, or call other operators."""

from typing import Any

import torch
from torch import fx

__all__ = [
    "argument_types",
    "draws",
    "handles_tensors",
    "is_composite",
    "is_vmap_step",
    "returns_new_memory",
    "returns_view",
    "writes",
    "written_arguments",
]


def is_vmap_step(op: object) -> bool:
    """Return whether ``op`` enters, leaves or prepares a ``torch.vmap`` in a graph.

    Why: torch.export records the steps of vmap as calls of private functions with side effects.
    """
    return getattr(op, "__module__", None) == "torch._functorch.predispatch"


def writes(op: object) -> bool:
    """Return whether ``op`` is an operator that writes to one of its arguments.

    Why: only the schema of an operator tells, and it is private.
    """
    schema = getattr(op, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def written_arguments(node: fx.Node) -> list[fx.Node]:
    """Return the arguments that an operator writes to, those in lists included.

    Why: as for ``writes``.
    """
    schema: Any = getattr(node.target, "_schema", None)
    if not writes(node.target):
        return []
    written = [
        node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
        for i, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    flat = [x for value in written for x in (value if isinstance(value, list | tuple) else [value])]
    return [x for x in flat if isinstance(x, fx.Node)]


def draws(op: object) -> bool:
    """Return whether ``op`` is an operator that draws random numbers.

    Why: only a tag of an operator tells, and torch.Tag is no public type.
    """
    return torch.Tag.nondeterministic_seeded in getattr(op, "tags", ())


def returns_view(op: object) -> bool:
    """Return whether ``op`` is an operator whose result may share memory with an argument.

    Why: as for ``writes``.
    """
    schema = getattr(op, "_schema", None)
    return schema is not None and any(r.alias_info is not None for r in schema.returns)


def returns_new_memory(op: object) -> bool:
    """Return whether ``op`` is an operator whose results share no memory with its arguments.

    Why: as for ``writes``.
    """
    return hasattr(op, "_schema") and not returns_view(op)


def handles_tensors(op: Any) -> bool:
    """Return whether ``op`` takes or returns tensors, unlike those of TorchScript's interpreter.

    Why: as for ``writes``.
    """
    schema = op._schema
    return any("Tensor" in str(v.type) for v in (*schema.arguments, *schema.returns))


def argument_types(op: Any) -> dict[str, str]:
    """Return the type of each argument of ``op`` by name; nothing for higher-order operators.

    Why: as for ``writes``. Operators take a dtype as an int, and crash if it is none.
    """
    schema = getattr(op, "_schema", None)
    return {a.name: str(a.real_type) for a in schema.arguments} if schema else {}


def is_composite(op: Any) -> bool:
    """Return whether ``op`` may consist of calls of other operators, which modes see one by one.

    Why: only the dispatcher of an operator tells, and it is private. Other callables may too.
    """
    decomposes = getattr(op, "_can_decompose", None)
    return decomposes is None or bool(decomposes())
