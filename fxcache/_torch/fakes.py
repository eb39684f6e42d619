"""Runs graphs on fake tensors, to find the shapes of their values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

# Why: without it, torch 2.11 runs `linear` of varying sizes as if they were fixed.
from torch._dispatch.python import enable_python_dispatcher

# Why: fake tensors have no public names.
from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = ["FakeRun"]

Check = Callable[[fx.Node, Any], None]


class FakeRun:
    """One run of a graph on fake tensors.

    Why: torch.export records the shapes of values only while it traces a module.

    Args:
        sizes: The sizes that may vary, by name, with a value that each may have.

    Attributes:
        symbols: The symbolic size for each name.
    """

    def __init__(self, sizes: Mapping[str, int]):
        # Why: symbolic sizes have no public names. Imported late, because Dynamo takes a second.
        from torch._dynamo.source import ConstantSource
        from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

        environment = ShapeEnv()
        self._mode = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)
        self.symbols: dict[str, Any] = {}
        for name, value in sizes.items():
            source = ConstantSource(name)
            symbol = environment.create_symbol(value, source, DimDynamic.DYNAMIC)
            self.symbols[name] = environment.create_symintnode(symbol, hint=value, source=source)

    def empty(
        self, shape: Sequence[Any], stride: Sequence[Any], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Return a fake tensor. Sizes and strides may be symbolic."""
        with self._mode:
            return torch.empty_strided(shape, stride, dtype=dtype, device=device)

    def like(self, weight: Tensor) -> Tensor:
        """Return a fake tensor like ``weight``, with sizes that do not vary."""
        return self._mode.from_tensor(weight.detach(), static_shapes=True)

    def run(
        self,
        graph: fx.Graph,
        held: Mapping[str, Any],
        inputs: Sequence[Any],
        allow: Check,
        check: Check,
    ) -> Any:
        """Run ``graph``, and note each node's value. Return the value of its output.

        Args:
            graph: The graph.
            held: Fake weights and regions, by the target of their ``get_attr`` node.
            inputs: Fake values of the placeholders, in order.
            allow: Receives each node and its arguments before it runs.
            check: Receives each node and its value.
        """
        given, values = iter(inputs), dict[fx.Node, Any]()
        with self._mode, torch.no_grad(), enable_python_dispatcher():
            for node in graph.nodes:
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
                if node.op == "placeholder":
                    value = next(given)
                elif node.op == "get_attr":
                    value = held[str(node.target)]
                    if isinstance(value, fx.GraphModule):
                        values[node] = self._runner(value, allow, check)
                        continue
                elif node.op == "output":
                    return args[0]
                else:
                    allow(node, (*args, *kwargs.values()))
                    value = node.target(*args, **kwargs)
                check(node, value)
                values[node] = node.meta["val"] = value
        raise AssertionError("a graph ends with its output")

    def _runner(self, region: fx.GraphModule, allow: Check, check: Check) -> Callable[..., Any]:
        """Return a function that runs ``region`` as its operator does, and notes its values."""
        held = dict(region.named_children())
        return lambda *inputs: self.run(region.graph, held, inputs, allow, check)
