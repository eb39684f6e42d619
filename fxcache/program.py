"""The captured denoiser: a functional graph, the roles of its inputs, and its weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor, fx

from fxcache._torch import TreeSpec, hint_of, tree_flatten
from fxcache.effect import Effect, Place
from fxcache.objects import Part
from fxcache.opaque import OpaqueCall

STATE_KEY = "_fxcache"  # the attribute that holds the state of an optimised module or pipeline


class Role(Enum):
    """The purpose of an input of a denoiser."""

    LATENT = "latent"
    TIMESTEP = "timestep"
    CONDITIONING = "conditioning"
    STATE = "state"  # a tensor inside an object that the model may write to


@dataclass(frozen=True)
class Input:
    """One tensor input of a program.

    Attributes:
        path: The path of the tensor in the call's arguments (``added_cond_kwargs.time_ids``).
        role: The purpose of the tensor.
    """

    path: str
    role: Role


@dataclass(frozen=True)
class VaryingSizes:
    """The input sizes that may vary between calls, and the constraints that torch.export found.

    Attributes:
        expressions: The size of each dimension that may vary: an int or a sympy expression. The
            key is (index of the input, dimension).
        ranges: The least and the greatest value of each symbol in the expressions.
        guards: Further conditions on the symbols, as sympy expressions.
    """

    expressions: Mapping[tuple[int, int], Any] = field(default_factory=dict)
    ranges: Mapping[Any, tuple[Any, Any]] = field(default_factory=dict)
    guards: tuple[Any, ...] = ()

    def admit(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the graph is valid for these inputs.

        All sizes that may not vary are assumed to be the sizes at capture.
        """
        symbol_values = self.symbol_values(tensors)
        for (index, dim), expression in self.expressions.items():
            size = tensors[index].shape[dim]
            if size_of(expression, symbol_values) != size:
                return False
        for symbol, value in symbol_values.items():
            low, high = self.ranges.get(symbol, (0, value))
            if not low <= value <= high:
                return False
        return all(guard.subs(symbol_values) == True for guard in self.guards)  # noqa: E712, sympy

    def symbol_values(self, tensors: Sequence[Tensor]) -> dict[Any, int]:
        """Return the value of each symbol, by the first size of an input that is the symbol."""
        found: dict[Any, int] = {}
        for (index, dim), expression in self.expressions.items():
            if not isinstance(expression, int) and expression.is_Symbol:
                found.setdefault(expression, tensors[index].shape[dim])
        return found


def size_of(expression: Any, symbol_values: Mapping[Any, int]) -> Any:
    """Return the size that ``expression``, an int or a sympy expression, stands for."""
    if isinstance(expression, int):
        return expression
    known = symbol_values.get(expression)
    return expression.subs(symbol_values) if known is None else known


@dataclass(frozen=True)
class StateChange:
    """What a call writes: to its inputs, to state objects, and to objects that it returns.

    The graph returns first the new value of each input in ``written``, then each tensor that the
    call creates.

    Attributes:
        objects: The structure of each state object. Tensors in it are numbered: the inputs come
            first, in the order of ``Program.inputs``; tensors that the call creates follow.
        written: The indices of the inputs that the call writes in place.
        returned: The structure of each object in the result, by its index among the result's
            leaves. The graph returns None there.
        kept: The structure of each attribute of the model in which the call replaces tensors.
    """

    objects: tuple[Part, ...]
    written: tuple[int, ...]
    returned: Mapping[int, Part] = field(default_factory=dict)
    kept: Mapping[Place, Part] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """A denoiser as one functional graph.

    Attributes:
        model: The class name of the module.
        graph: The graph. Its placeholders correspond to ``inputs``, in order. Its ``get_attr``
            nodes name ``weights``. Every other node calls a functional ATen op; ``meta["val"]``
            holds the fake value of its result. The output is one flat tuple: first the values of
            ``out_spec``, then those of ``state``.
        inputs: The path and the role of each tensor input.
        weights: Parameters, buffers and constants by name.
        out_spec: The structure of the module's return value.
        specialized: The paths of inputs whose values are constants of the graph. The graph is
            valid only for calls that pass the same values at these paths.
        sizes: The input sizes that may vary. The graph is valid only for sizes that this admits.
        state: The changes to state objects, and the objects in the result; None if there are none.
        opaque: The calls of submodules that are not traced, which the graph refers to by handle.
        effects: What a call changes in Python objects of the module, and the graph does not.
        unused: The draws of random numbers and the checks that the graph leaves out, because no
            output needs their results.
        placeholders: The placeholder nodes of the graph, in order.
        returns_tuple: Whether the module returns a flat tuple, without nesting.
    """

    model: str
    graph: fx.Graph
    inputs: tuple[Input, ...]
    weights: Mapping[str, Any]
    out_spec: TreeSpec
    specialized: frozenset[str] = frozenset()
    sizes: VaryingSizes = VaryingSizes()
    state: StateChange | None = None
    opaque: tuple[OpaqueCall, ...] = ()
    effects: tuple[Effect, ...] = ()
    unused: tuple[str, ...] = ()
    placeholders: tuple[fx.Node, ...] = field(init=False)
    returns_tuple: bool = field(init=False)

    def __post_init__(self) -> None:
        placeholders = tuple(n for n in self.graph.nodes if n.op == "placeholder")
        flat = tree_flatten((0,) * self.out_spec.num_leaves)[1]
        object.__setattr__(self, "placeholders", placeholders)
        object.__setattr__(self, "returns_tuple", self.out_spec == flat)

    @property
    def returns_objects(self) -> bool:
        """Whether the module returns objects with tensors, such as a key/value cache."""
        return self.state is not None and bool(self.state.returned)

    @property
    def writes(self) -> bool:
        """Whether a call writes to tensors of the caller, such as a key/value cache."""
        return self.state is not None and bool(self.state.written)

    @property
    def latents(self) -> list[fx.Node]:
        """The placeholders of the latent: several if the model takes a list of images, else one."""
        return self.placeholders_of(Role.LATENT)

    def placeholders_of(self, role: Role) -> list[fx.Node]:
        """The placeholders of the inputs that have this role."""
        pairs = zip(self.placeholders, self.inputs, strict=True)
        return [node for node, program_input in pairs if program_input.role is role]

    @property
    def outputs(self) -> list[Any]:
        """The values that the graph returns: nodes, or constants such as None."""
        return list(output_node(self.graph).args[0])  # type: ignore[arg-type]


def output_node(graph: fx.Graph) -> fx.Node:
    """The output node of ``graph``."""
    return next(n for n in reversed(graph.nodes) if n.op == "output")


def value_of(node: fx.Node) -> Any:
    """The fake value that capture recorded for ``node``: a tensor, or a tuple of them."""
    return node.meta.get("val")


def is_tensor(node: fx.Node) -> bool:
    """Whether ``node`` yields one tensor."""
    return isinstance(value_of(node), Tensor)


def shape_of(value: Tensor) -> tuple[int, ...]:
    """The shape of a recorded value at capture. A data-dependent size counts as 1."""
    return tuple(1 if (known := hint_of(size)) is None else known for size in value.shape)


def has_unknown_size(value: Any) -> bool:
    """Whether ``value`` is a data-dependent size, or a tensor with such a size."""
    sizes = value.shape if isinstance(value, Tensor) else [value]
    return any(isinstance(size, torch.SymInt) and hint_of(size) is None for size in sizes)


def nbytes_of(node: fx.Node) -> int:
    """The size in bytes, at capture, of the tensor that ``node`` yields."""
    value: Tensor = node.meta["val"]
    return math.prod(shape_of(value)) * value.element_size()


def module_paths(node: fx.Node) -> list[str]:
    """Paths of the modules that ``node`` was traced in, outermost first, without the root."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    return [path for path, _ in stack.values() if path]


def note_of(node: fx.Node, what: str) -> tuple[Any, ...] | None:
    """The note of kind ``what`` in the metadata of ``node``; None if it has none.

    A note stores the node that it describes. A note that was copied from another node's metadata
    does not count.
    """
    owner, *note = node.meta.get(what, (None,))
    return tuple(note) if owner is node else None


def copy_graph(graph: fx.Graph) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """An independent copy of ``graph``, and a map from each node to its copy."""
    copy = fx.Graph()
    nodes: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        nodes[node] = copy.node_copy(node, lambda n: nodes[n])
    return copy, nodes


def remove_dead(graph: fx.Graph) -> None:
    """Erase every node that no output needs. This is safe because the graph is functional."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def dtype_name(dtype: torch.dtype) -> str:
    """``bfloat16`` rather than ``torch.bfloat16``."""
    return str(dtype).removeprefix("torch.")
