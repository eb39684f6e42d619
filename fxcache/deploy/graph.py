"""Graphs as JSON, and back.

A graph is a list of nodes. A node has a name, an operator with arguments, and the paths of the
modules that it was traced in. Regions, which higher-order operators run, are graphs inside.
"""

import keyword
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fxcache._torch import argument_types
from fxcache.deploy.fields import Fields, built, damaged, list_of
from fxcache.deploy.operators import name_of, target_of
from fxcache.deploy.values import NAMED, decode, encode
from fxcache.errors import ArtifactError

MAX_NODES = 1_000_000
MAX_DEPTH = 8  # of regions inside regions
MAX_NAME = 512
ENUMERATIONS = ("ScalarType", "Layout", "MemoryFormat")  # torch passes them as ints
KINDS = ("input", "weight", "region", "call", "output")
NODE = ("kind", "name", "target", "args", "kwargs", "modules")
STACK = "nn_module_stack"  # the note of torch.export with the modules of a node


def graph_to_json(
    graph: fx.Graph, weights: Mapping[str, Any], device: torch.device
) -> dict[str, Any]:
    """Return ``graph`` as JSON.

    Args:
        graph: The graph, without nodes that call modules or methods.
        weights: The tensors and the regions that its ``get_attr`` nodes name.
        device: The device of the model.

    Raises:
        ArtifactError: An operator or a value cannot be part of an artifact.
    """
    number_of: dict[fx.Node, int] = {}
    stacks: dict[tuple[tuple[str, str], ...], int] = {}
    nodes: list[list[Any]] = []
    for node in graph.nodes:
        stack = stack_of(node)
        nodes.append([
            *described(node, number_of, weights, device),
            stacks.setdefault(stack, len(stacks)),
        ])  # fmt: skip
        number_of[node] = len(number_of)
    return {"modules": [[list(level) for level in stack] for stack in stacks], "nodes": nodes}


def stack_of(node: fx.Node) -> tuple[tuple[str, str], ...]:
    """Return the path of each module that ``node`` was traced in, and its entry in the stack."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get(STACK) or {}
    return tuple((key, path) for key, (path, _) in stack.items())


def described(
    node: fx.Node,
    number_of: Mapping[fx.Node, int],
    weights: Mapping[str, Any],
    device: torch.device,
) -> list[Any]:
    """Return the kind, the name, the target, the arguments and the keywords of a node."""
    args, kwargs = ([encode(v, number_of, device) for v in node.args], dict(node.kwargs))
    keywords = {name: encode(value, number_of, device) for name, value in kwargs.items()}
    if node.op == "placeholder":
        return ["input", node.name, None, [], {}]
    if node.op == "output":
        return ["output", node.name, None, args, {}]
    if node.op == "call_function":
        return ["call", node.name, name_of(node.target), args, keywords]
    if node.op == "get_attr":
        held = weights[str(node.target)]
        if isinstance(held, torch.Tensor):
            return ["weight", node.name, str(node.target), [], {}]
        if isinstance(held, fx.GraphModule):
            inside = graph_to_json(held.graph, dict(held.named_children()), device)
            return ["region", node.name, inside, [], {}]
    raise ArtifactError(
        f"the node {node.name} of kind {node.op} cannot be part of an artifact",
        where=str(node.target),
        remedy="report this as a bug in fxcache, with the model's configuration",
    )


class GraphReader:
    """Makes a graph from JSON.

    Args:
        weights: The names of the weights that it may read.
        device: The device of the model.

    Attributes:
        regions: The graphs of its regions, by the target of their ``get_attr`` node.
        num_nodes: The number of nodes that were read, those of regions included.
    """

    def __init__(self, weights: Mapping[str, Any], device: torch.device, depth: int = 0):
        self._weights, self._device, self._depth = weights, device, depth
        self.regions: dict[str, fx.GraphModule] = {}
        self.num_nodes = 0

    def read(self, data: object, where: str) -> fx.Graph:
        """Return the graph.

        Raises:
            ArtifactError: ``data`` is no graph, or uses an operator that is not allowed.
        """
        if self._depth > MAX_DEPTH:
            raise damaged("regions are nested too deeply", where)
        fields = Fields(data, where, ("modules", "nodes"))
        stacks = [module_stack(stack, where) for stack in fields.items("modules", list)]
        described = fields.items("nodes", list)
        if len(described) > MAX_NODES:
            raise damaged(f"the graph has more than {MAX_NODES:,} nodes", where)
        graph, nodes = fx.Graph(), list[fx.Node]()
        self.num_nodes += len(described)
        for number, one in enumerate(described):
            at = f"{where}.nodes[{number}]"
            node = self._node(graph, nodes, one, at)
            if node.name != one[1]:  # fx renames it
                raise damaged(f"another node, or Python, has the name {one[1]}", at)
            if type(one[5]) is not int or not 0 <= one[5] < len(stacks):
                raise damaged("unknown modules", at)
            node.meta[STACK] = stacks[one[5]]
            nodes.append(node)
        if not nodes or [n.op for n in nodes].count("output") != 1 or nodes[-1].op != "output":
            raise damaged("the graph does not end with its only output", where)
        built(graph.lint, where)
        return graph

    def _node(self, graph: fx.Graph, nodes: list[fx.Node], one: list[Any], at: str) -> fx.Node:
        """Append one node to ``graph``."""
        if len(one) != len(NODE):
            raise damaged("a node has six parts", at)
        kind, name, target, args, kwargs, _ = one
        if kind not in KINDS or not is_name(name):
            raise damaged(f"unknown kind {str(kind)[:20]!r} or name {str(name)[:40]!r}", at)
        if type(args) is not list or type(kwargs) is not dict or not all(map(is_name, kwargs)):
            raise damaged("arguments are no list, or keywords no names", at)
        given: Any = [decode(value, nodes, self._device, at) for value in args]
        keywords = {k: decode(v, nodes, self._device, at) for k, v in kwargs.items()}
        if kind == "call":
            if type(target) is not str:
                raise damaged("an operator is named by a string", at)
            function = target_of(target, at)
            require_arguments(function, given, keywords, at)
            return graph.create_node("call_function", function, tuple(given), keywords, name)
        if kind == "output":
            if len(given) != 1:
                raise damaged("an output has one argument", at)
            return graph.create_node("output", "output", tuple(given), name=name)
        if kind == "input":
            return graph.create_node("placeholder", name, name=name)
        return graph.create_node("get_attr", self._held(kind, name, target, at), name=name)

    def _held(self, kind: str, name: str, target: Any, at: str) -> str:
        """Return the target of a weight or a region."""
        if kind == "region":
            inner = GraphReader({}, self._device, self._depth + 1)
            graph = inner.read(target, at)
            self.num_nodes += inner.num_nodes
            self.regions[name] = built(lambda: fx.GraphModule(dict(inner.regions), graph), at)
            return name
        if type(target) is not str or target not in self._weights:
            raise damaged(f"there is no weight {str(target)[:80]!r}", at)
        return target


def is_name(value: object) -> bool:
    """Return whether ``value`` can be a name in the code that fx writes for a graph."""
    if not isinstance(value, str) or len(value) > MAX_NAME or not value.isascii():
        return False
    return value.isidentifier() and not keyword.iskeyword(value)


def require_arguments(
    function: Any, args: Sequence[Any], keywords: Mapping[str, Any], at: str
) -> None:
    """Raise ArtifactError unless ``function`` has these keywords, and takes dtypes as such."""
    types = argument_types(function)
    if unknown := sorted(keywords.keys() - types.keys()):
        raise damaged(f"the operator has no argument {unknown[0][:40]!r}", at)
    given: dict[str, Any] = {**dict(zip(types, args, strict=False)), **keywords}
    for name, value in given.items():
        enumerated = any(kind in types[name] for kind in ENUMERATIONS)
        if enumerated and not isinstance(value, (*NAMED.values(), type(None))):
            raise damaged(f"{name} is no dtype, layout or memory format", at)


def module_stack(levels: Any, where: str) -> dict[str, tuple[str, str]]:
    """Return the note of torch.export for these levels: pairs of a key and a path."""
    stack = {}
    for level in levels:
        if len(list_of(level, str, where)) != 2:
            raise damaged("a module has a key and a path", where)
        key, path = level
        stack[key] = (path, "")
    return stack
