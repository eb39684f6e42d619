"""The captured denoiser: a functional graph, the roles of its inputs, the weights it reads."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor, fx

from fxcache._torch import TreeSpec, hint_of, replace_tensor, tree_flatten
from fxcache.objects import Part

OURS = "_fxcache"  # the attribute under which an optimised module keeps its engine


class Role(Enum):
    """What an input is to a denoiser."""

    LATENT = "latent"
    TIMESTEP = "timestep"
    CONDITIONING = "conditioning"
    STATE = "state"  # held by an object that the model may write to


@dataclass(frozen=True)
class Input:
    """One tensor input: where it stands in the call (``added_cond_kwargs.time_ids``), its role."""

    path: str
    role: Role


@dataclass(frozen=True)
class VaryingSizes:
    """Sizes of the inputs that may vary, as torch.export found them to depend on one another.

    ``expressions``: by number of the input and dimension; ``ranges``: least and greatest value of
    each symbol in them; ``guards``: what else must hold between the symbols.
    """

    expressions: Mapping[tuple[int, int], Any] = field(default_factory=dict)
    ranges: Mapping[Any, tuple[Any, Any]] = field(default_factory=dict)
    guards: tuple[Any, ...] = ()

    def admit(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the graph holds for these inputs, whose other sizes are as at capture."""
        found: dict[Any, int] = {}
        for (index, dim), expression in self.expressions.items():
            size = tensors[index].shape[dim]
            if isinstance(expression, int):
                if expression != size:
                    return False
            elif expression.is_Symbol:
                low, high = self.ranges.get(expression, (0, size))
                if found.setdefault(expression, size) != size or not low <= size <= high:
                    return False
            elif expression.subs(found) != size:
                return False
        return all(guard.subs(found) == True for guard in self.guards)  # noqa: E712, sympy's own


@dataclass(frozen=True)
class StateChange:
    """What a call leaves in its state objects.

    ``objects``: the structure of each. Its tensors are numbered: first those of the call, as in
    ``Program.inputs``, then those that the call makes. ``written``: the numbers of inputs that the
    call writes in place. The graph returns the new values of these, then those it makes.
    """

    objects: tuple[Part, ...]
    written: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A denoiser as one graph.

    ``graph``: placeholders are ``inputs``, in order; ``get_attr`` nodes name ``weights``; every
    other node calls a functional ATen op on fake values kept in ``node.meta["val"]``; the output
    is one flat tuple: as many values as ``out_spec`` turns back into what the module returns, then
    those of ``state``, where the call passes state objects. The graph holds
    for calls whose inputs at the paths in ``specialized`` have the values they had at capture, and
    whose sizes ``sizes`` admits.
    """

    model: str
    graph: fx.Graph
    inputs: tuple[Input, ...]
    weights: Mapping[str, Any]
    out_spec: TreeSpec
    specialized: frozenset[str] = frozenset()
    sizes: VaryingSizes = VaryingSizes()
    state: StateChange | None = None
    placeholders: tuple[fx.Node, ...] = field(init=False)
    returns_tuple: bool = field(init=False)  # of values that are not nested

    def __post_init__(self) -> None:
        found = tuple(n for n in self.graph.nodes if n.op == "placeholder")
        flat = tree_flatten((0,) * self.out_spec.num_leaves)[1]
        object.__setattr__(self, "placeholders", found)
        object.__setattr__(self, "returns_tuple", self.out_spec == flat)

    @property
    def latents(self) -> list[fx.Node]:
        """The placeholders of the latent: one, unless the model takes a list of pictures."""
        return self.given(Role.LATENT)

    def given(self, role: Role) -> list[fx.Node]:
        """The placeholders of the inputs of one role."""
        pairs = zip(self.placeholders, self.inputs, strict=True)
        return [node for node, given in pairs if given.role is role]

    @property
    def outputs(self) -> list[Any]:
        """What the graph returns: nodes, or constants such as None."""
        return list(output_node(self.graph).args[0])  # type: ignore[arg-type]


def output_node(graph: fx.Graph) -> fx.Node:
    """The one node that returns."""
    return next(n for n in reversed(graph.nodes) if n.op == "output")


def value_of(node: fx.Node) -> Any:
    """The fake value that capture recorded for ``node``: a tensor, or a tuple of them."""
    return node.meta.get("val")


def is_tensor(node: fx.Node) -> bool:
    """Whether ``node`` yields one tensor."""
    return isinstance(value_of(node), Tensor)


def shape_of(value: Tensor) -> tuple[int, ...]:
    """The shape of a recorded value at capture; sizes that depend on values count as 1."""
    return tuple(1 if (known := hint_of(size)) is None else known for size in value.shape)


def has_unknown_size(value: Any) -> bool:
    """Whether a recorded value has, or is, a size that depends on values."""
    sizes = value.shape if isinstance(value, Tensor) else [value]
    return any(isinstance(size, torch.SymInt) and hint_of(size) is None for size in sizes)


def nbytes_of(node: fx.Node) -> int:
    """Bytes, at capture, of the one tensor that ``node`` yields."""
    value: Tensor = node.meta["val"]
    return math.prod(shape_of(value)) * value.element_size()


def module_paths(node: fx.Node) -> list[str]:
    """Paths of the modules that ``node`` was traced in, outermost first, the root left out."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    return [path for path, _ in stack.values() if path]


def graph_module(
    graph: fx.Graph, weights: Mapping[str, Any], name: str, added: Mapping[str, Tensor]
) -> fx.GraphModule:
    """``graph`` as a callable module that shares ``weights`` with the original.

    All weights hang on the module itself, as ``w_…``: walking a tree of submodules at every call
    would cost milliseconds. ``weight_names(module)`` gives their names in the original. ``added``:
    what the graph reads besides, which the original does not have.
    """
    held: dict[str, Any] = {}
    names: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            attribute, target = f"w_{node.name}", str(node.target)
            held[attribute] = added[target] if target in added else weights[target]
            if target not in added:
                names[attribute] = target
            node.target = attribute
    module = fx.GraphModule(held, graph, class_name=name)
    module.meta["weight_names"] = names
    return module.eval()


def weight_names(module: fx.GraphModule) -> dict[str, str]:
    """Attribute of a variant -> name of that weight in the original module."""
    return dict(module.meta["weight_names"])


def rebind(module: fx.GraphModule, weights: Mapping[str, Any]) -> None:
    """Make ``module`` read these tensors, where they were replaced.

    Another thread may run the module meanwhile: under each name it finds the old tensor or the new.
    """
    for attribute, name in weight_names(module).items():
        live = weights[name]
        if live is not getattr(module, attribute):
            replace_tensor(module, attribute, live)


def noted(node: fx.Node, what: str) -> tuple[Any, ...] | None:
    """What is noted of ``node`` itself: other nodes may have copied what is known of its value."""
    owner, *found = node.meta.get(what, (None,))
    return tuple(found) if owner is node else None


def copy_graph(graph: fx.Graph) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """An independent copy of ``graph``, and the map from its nodes to the copy's."""
    copy = fx.Graph()
    nodes: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        nodes[node] = copy.node_copy(node, lambda n: nodes[n])
    return copy, nodes


def remove_dead(graph: fx.Graph) -> None:
    """Erase every node that no output needs; functional graphs have no other reason to stay."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def dtype_name(dtype: torch.dtype) -> str:
    """``bfloat16`` rather than ``torch.bfloat16``."""
    return str(dtype).removeprefix("torch.")
