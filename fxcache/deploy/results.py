"""The structure of a model's result as JSON, and back as plain containers."""

from collections import OrderedDict, namedtuple
from collections.abc import Sequence
from typing import Any

from fxcache._torch import TreeSpec, tree_flatten
from fxcache.deploy.fields import Fields, damaged
from fxcache.errors import ArtifactError

MAX_DEPTH = 16
CONTAINERS: dict[str, type] = {"tuple": tuple, "list": list, "dict": dict}
LEAF = "leaf"


def spec_to_json(spec: TreeSpec) -> Any:
    """Return the structure of a result as JSON.

    A dataclass or an output class of diffusers becomes ``record``: its name and its fields.

    Raises:
        ArtifactError: The result contains an object of another kind.
    """
    if spec.is_leaf():
        return LEAF
    parts = [spec_to_json(part) for part in spec.children()]
    kind: Any = spec.context if spec.type is namedtuple else spec.type
    if kind in (tuple, list):
        return {"kind": kind.__name__, "name": "", "fields": [], "items": parts}
    names = list(getattr(kind, "_fields", spec.context or ()))
    if len(names) != len(parts) or not all(type(name) in (str, int) for name in names):
        raise ArtifactError(
            f"the model returns a {kind.__name__}, which cannot be part of an artifact",
            where=kind.__name__,
            remedy="let the model return tensors in tuples, lists, dicts or dataclasses",
        )
    form = "dict" if kind in (dict, OrderedDict) else "record"
    return {"kind": form, "name": kind.__name__, "fields": names, "items": parts}


def spec_from_json(data: object, where: str) -> TreeSpec:
    """Return the structure. A record becomes a named tuple.

    Raises:
        ArtifactError: ``data`` describes no structure.
    """
    return tree_flatten(example(data, where, 0))[1]


def example(data: object, where: str, depth: int) -> Any:
    """Return a result with this structure, with zeros as leaves."""
    if data == LEAF:
        return 0
    if depth > MAX_DEPTH:
        raise damaged("the result is nested too deeply", where)
    fields = Fields(data, where, ("kind", "name", "fields", "items"))
    kind = fields.one_of("kind", (*CONTAINERS, "record"))
    items = [example(item, where, depth + 1) for item in fields.of("items", list)]
    names = fields.of("fields", list)
    if kind in ("tuple", "list"):
        return CONTAINERS[kind](items)
    known = all(type(name) in (str, int) for name in names)
    if not known or len(names) != len(items) or len(set(names)) != len(names):
        raise fields.wrong("fields", "each part needs a name of its own")
    if kind == "dict":
        return dict(zip(names, items, strict=True))
    return record_class(fields.of("name", str), names, where)(*items)


def record_class(name: str, names: Sequence[Any], where: str) -> Any:
    """Return a named tuple class for a record."""
    if not all(str(n).isidentifier() for n in (name, *names)):
        raise damaged(f"{name[:40]!r} is no record", where)
    try:
        return namedtuple(name, names)
    except ValueError as error:
        raise damaged(str(error), where) from error
