"""A backend of torch.compile that does to results and inputs what captured CUDA graphs do."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten


class Replayed:
    """A backend whose graphs' results live until the model is called again.

    ``captured``: what would be captured: a graph after those that ran before it in the same call,
    with static inputs at these addresses. Other inputs are copied in, to memory of the capture.
    ``pooled``: the shapes of the tensors in that memory, the results and the copied inputs.
    """

    def __init__(self) -> None:
        self.graphs = 0
        self.results: list[Tensor] = []
        self.path: tuple[int, ...] = ()
        self.captured: set[tuple[Any, ...]] = set()
        self.pooled: list[torch.Size] = []

    def __call__(self, graph: fx.GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        self.graphs += 1
        number = self.graphs
        is_static = list(map(is_marked, graph.graph.find_nodes(op="placeholder")))
        for node in graph.graph.find_nodes(op="call_function", target=aten.copy_.default):
            assert is_marked(node.args[0]), "Inductor captures no graph that writes other inputs"

        def run(*inputs: Any) -> Any:
            static = [i.data_ptr() for i, kept in zip(inputs, is_static, strict=True) if kept]
            assert static
            copied = [i.shape for i, kept in zip(inputs, is_static, strict=True) if not kept]
            self.path = (*self.path, number)
            capture = (self.path, *static)
            given = {t.untyped_storage().data_ptr() for t in inputs if isinstance(t, Tensor)}
            results = tuple(
                r.clone() if r.untyped_storage().data_ptr() in given else r for r in graph(*inputs)
            )
            if capture not in self.captured:
                self.captured.add(capture)
                self.pooled += [*copied, *(result.shape for result in results)]
            self.results.extend(results)
            return results

        return run

    def calling(self, model: Callable[..., Any]) -> Callable[..., Any]:
        """``model``, which begins a new generation of results at each call."""

        def call(*args: Any, **kwargs: Any) -> Any:
            for result in self.results:
                result.fill_(torch.nan if result.is_floating_point() else 1)
            self.results.clear()
            self.path = ()
            return model(*args, **kwargs)

        return call


def is_marked(node: fx.Node) -> bool:
    """Return whether Inductor takes this input at the address that it had at the capture."""
    return node.meta["tensor_dict"].get("_dynamo_static_input_type") is not None
