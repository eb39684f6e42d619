"""Tests what identifies a compiled graph."""

import pytest
import torch
from torch import fx, nn

from fxcache.deploy.native.graph import digest_of


def graph_on(device: str, inside: bool = False) -> fx.GraphModule:
    """Return a graph that makes tensors on ``device``, itself or in a region."""
    graph = fx.Graph()
    if inside:
        region = graph.get_attr("region")
        graph.output((graph.call_function(torch.ops.higher_order.invoke_subgraph, (region,)),))
        return fx.GraphModule({"region": graph_on(device)}, graph)
    made = graph.call_function(
        torch.ops.aten.full.default, ([2, 3], 1.0), {"device": torch.device(device)}
    )
    moved = graph.call_function(torch.ops.prims.device_put.default, (made, torch.device(device)))
    graph.output((moved,))
    return fx.GraphModule(nn.Module(), graph)


@pytest.mark.parametrize("inside", [False, True])
def test_a_graph_is_the_same_on_another_gpu(inside):
    first, second, cpu = (digest_of(graph_on(d, inside)) for d in ("cuda:0", "cuda:1", "cpu"))
    assert first == second == digest_of(graph_on("cuda", inside))
    assert first != cpu
