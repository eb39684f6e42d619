"""Tells what operators do: write to arguments, return views of them, or call other operators."""

from typing import Any

__all__ = [
    "argument_types",
    "handles_tensors",
    "is_composite",
    "is_vmap_step",
    "returns_view",
    "writes",
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
