"""A graph as a callable module that shares its weights with the original module."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx

from fxcache._torch import replace_tensor


def graph_module(
    graph: fx.Graph, weights: Mapping[str, Any], name: str, added: Mapping[str, Tensor]
) -> fx.GraphModule:
    """Make ``graph`` a callable module that shares ``weights`` with the original module.

    All weights are attributes ``w_…`` of the module itself, because walking a tree of submodules
    at every call would cost milliseconds. ``weight_names`` maps them to their original names.

    Args:
        graph: The graph. Its ``get_attr`` nodes are renamed in place.
        weights: The original module's weights by name.
        name: The class name of the new module.
        added: Tensors that the graph reads and that the original module does not have, by name.
    """
    attributes: dict[str, Any] = {}
    names: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            attribute, target = f"w_{node.name}", str(node.target)
            attributes[attribute] = added[target] if target in added else weights[target]
            if target not in added:
                names[attribute] = target
            node.target = attribute
    module = fx.GraphModule(attributes, graph, class_name=name)
    module.meta["weight_names"] = names
    return module.eval()


def weight_names(module: fx.GraphModule) -> dict[str, str]:
    """For each weight attribute of a variant, the name of the weight in the original module."""
    return dict(module.meta["weight_names"])


def rebind(module: fx.GraphModule, weights: Mapping[str, Any]) -> None:
    """Make ``module`` read the tensors in ``weights``, where they differ from its own.

    Another thread may run the module at the same time. It reads the old or the new tensor.
    """
    for attribute, name in weight_names(module).items():
        weight = weights[name]
        if weight is not getattr(module, attribute):
            replace_tensor(module, attribute, weight)
