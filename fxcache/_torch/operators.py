"""Tells whether operators write to their arguments or return views of them."""

__all__ = [
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
