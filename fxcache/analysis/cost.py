"""The cost of each node in FLOPs: two per multiply-add, as FlopCounterMode counts."""

import math
import operator
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, fx

from fxcache._torch import hint_of, is_composite
from fxcache.opaque import call_of
from fxcache.program import Program, has_unknown_size, shape_of, value_of

aten = torch.ops.aten

KINDS = ("conv", "linear", "attention", "other")
CONVOLUTIONS = frozenset({
    "conv1d", "conv2d", "conv3d", "convolution", "_convolution",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
})  # fmt: skip
LINEARS = frozenset({"linear", "addmm", "mm", "matmul"})

Flops = dict[str, int]

MOST_COUNTED = 10_000
COUNTED: dict[Hashable, int] = {}  # the FLOPs that were counted so far, by ``shape_key``


class Costs:
    """FLOPs of every node of one program, by kind."""

    def __init__(self, program: Program):
        self._by_node = flops_by_node(program.graph, program.weights)

    @property
    def nodes(self) -> Set[fx.Node]:
        """The nodes that cost FLOPs."""
        return self._by_node.keys()

    def of(self, nodes: Iterable[fx.Node]) -> Flops:
        """FLOPs of ``nodes`` by kind."""
        return dict.fromkeys(KINDS, 0) | merged(self._by_node.get(node, {}) for node in nodes)

    def total(self, nodes: Iterable[fx.Node]) -> int:
        """FLOPs of ``nodes`` in total."""
        return sum(self.of(nodes).values())


def flops_by_node(graph: fx.Graph, weights: Mapping[str, Any]) -> dict[fx.Node, Flops]:
    """FLOPs of each node that costs any. A higher-order op costs the FLOPs of its graphs."""
    by_node: dict[fx.Node, Flops] = {}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if regions := regions_of(node, weights):
            inner = (flops for region in regions for flops in flops_inside(region))
            by_node[node] = merged(inner)
            continue
        if opaque := call_of(node):
            by_node[node] = dict(opaque.flops)
            continue
        if flops := counted_once(node):
            by_node[node] = {kind_of(node): flops}
    return by_node


def counted_once(node: fx.Node) -> int:
    """FLOPs of one node. Equal calls of one of torch's operators are counted once a process."""
    if not is_counted(node):
        return 0
    if not hasattr(node.target, "overloadpacket"):  # a callable that lives as long as its model
        return count(node)
    key = shape_key(node)
    if key not in COUNTED:
        if len(COUNTED) >= MOST_COUNTED:
            COUNTED.clear()
        COUNTED[key] = count(node)
    return COUNTED[key]


def flops_inside(region: fx.GraphModule) -> Iterable[Flops]:
    """FLOPs of each node in a graph that a higher-order op runs."""
    return flops_by_node(region.graph, dict(region.named_children())).values()


def regions_of(node: fx.Node, weights: Mapping[str, Any]) -> list[fx.GraphModule]:
    """The graphs that a higher-order op runs: inner autocast and grad-mode blocks, branches."""
    values = (weights.get(str(n.target)) for n in node.all_input_nodes if n.op == "get_attr")
    return [value for value in values if isinstance(value, fx.GraphModule)]


def merged(parts: Iterable[Mapping[str, int]]) -> Flops:
    """Return the sum of all ``parts``, by kind."""
    total: Flops = {}
    for part in parts:
        for kind, flops in part.items():
            total[kind] = total.get(kind, 0) + flops
    return total


def op_name(node: fx.Node) -> str:
    """``conv2d`` for ``aten.conv2d.default``; empty if the target is not an ATen op."""
    packet = getattr(node.target, "overloadpacket", None)
    return getattr(packet, "__name__", "")


def kind_of(node: fx.Node) -> str:
    """Return the kind of FLOPs, one of ``KINDS``."""
    return kind_named(op_name(node))


def kind_named(name: str) -> str:
    """Return the kind of FLOPs of the operator ``name``, one of ``KINDS``."""
    if name in CONVOLUTIONS:
        return "conv"
    if name in LINEARS:
        return "linear"
    return "attention" if "scaled_dot_product" in name else "other"


def shape_key(node: fx.Node) -> Hashable:
    """A key that is equal for two nodes exactly if their ops, shapes and options are equal."""

    def summary(value: Any) -> Hashable:
        if isinstance(value, fx.Node):
            return summary(value_of(value))
        if isinstance(value, Tensor):
            return ("tensor", shape_of(value), value.dtype)
        if isinstance(value, list | tuple):
            return tuple(summary(v) for v in value)
        return str(value)

    options = tuple((k, summary(v)) for k, v in sorted(node.kwargs.items()))
    return (node.target, summary(node.args), options)


def is_counted(node: fx.Node) -> bool:
    """Whether an op may cost FLOPs, and can be counted."""
    if node.target is aten.scaled_dot_product_attention.default:
        return True
    if node.target is operator.getitem:
        return False
    # This imports Triton if it is installed.
    from torch.utils.flop_counter import flop_registry

    packet = getattr(node.target, "overloadpacket", None)
    if packet not in flop_registry and not is_composite(node.target):
        return False  # as the counter would find by running it
    if any(n.op == "get_attr" and value_of(n) is None for n in node.all_input_nodes):
        return False  # it takes a constant of the graph that is no tensor
    values = flat_values(node)
    if not any(hasattr(value, "fake_mode") for value in values):
        return False
    # The op may fail at the sizes that replace data-dependent ones.
    return kind_of(node) != "other" or not any(map(has_unknown_size, values))


def count(node: fx.Node) -> int:
    """FLOPs of one node, counted by running its op on fake inputs with the sizes at capture."""
    if node.target is aten.scaled_dot_product_attention.default:
        return attention_flops(*(shape_of(value_of(n)) for n in node.args[:3]))  # type: ignore[arg-type]
    from torch.utils.flop_counter import FlopCounterMode

    fake = next(v.fake_mode for v in flat_values(node) if hasattr(v, "fake_mode"))
    with fake, torch.no_grad(), FlopCounterMode(display=False) as counter:
        call: Any = (node.args, node.kwargs)
        args, kwargs = fx.node.map_arg(call, lambda n: at_capture(value_of(n)))
        node.target(*args, **kwargs)  # type: ignore[operator]
    return int(counter.get_total_flops())


def flops_of_call(operator: Any, args: Sequence[Any], kwargs: Any, result: Any) -> Flops:
    """FLOPs by kind of one call of an operator that is not composite, on real tensors."""
    from torch.utils.flop_counter import flop_registry

    packet = operator.overloadpacket
    kind = kind_named(packet.__name__)
    if kind == "attention":  # the counter does not know the kernels of the CPU
        return {kind: attention_flops(*(tensor.shape for tensor in args[:3]))}
    formula: Any = flop_registry.get(packet)
    if formula is None:
        return {}
    return {kind: int(formula(*args, **kwargs, out_val=result))}


def at_capture(value: Any) -> Any:
    """Return a recorded value with the sizes at capture."""
    if isinstance(value, list | tuple):
        return [at_capture(item) for item in value]
    if isinstance(value, torch.SymInt):
        return hint_of(value)
    if isinstance(value, Tensor) and not all(isinstance(size, int) for size in value.shape):
        return value.new_empty(shape_of(value))
    return value


def attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> int:
    """FLOPs of softmax(QKᵀ)V for ``[..., S, D]``, two per multiply-add, without the softmax.

    FlopCounterMode counts the kernels that the composite op dispatches to. On meta and CPU tensors
    it misses some of them.
    """
    *batch, queries, width = query
    return 2 * math.prod(batch) * queries * key[-2] * (width + value[-1])


def flat_values(node: fx.Node) -> list[Any]:
    """Return the recorded values of the inputs of ``node``, with lists of tensors flattened."""
    values: list[Any] = []
    for source in node.all_input_nodes:
        value = value_of(source)
        values += value if isinstance(value, list | tuple) else [value]
    return values
