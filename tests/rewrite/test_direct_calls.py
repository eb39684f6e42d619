"""Tests that graphs whose operators are called directly compute what their modules compute."""

from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

import fxcache
from fxcache._torch import with_direct_calls
from tests.engines import optimized_engine
from tests.plain import dit, dit_inputs


def graph_module() -> fx.GraphModule:
    """Return a graph with weights, operators with options, and a Python function."""
    graph = fx.Graph()
    x, weight, scale = graph.placeholder("x"), graph.get_attr("weight"), graph.get_attr("scale")
    y = graph.call_function(torch.ops.aten.linear.default, (x, weight))
    y = graph.call_function(torch.ops.aten.add.Tensor, (y, scale), {"alpha": 2})
    y = graph.call_function(torch.mul, (y, scale))
    graph.output((y, graph.call_function(torch.ops.aten.sum.dim_IntList, (y, [-1]))))
    root = nn.Module()
    root.weight, root.scale = nn.Parameter(torch.randn(4, 4)), nn.Buffer(torch.randn(4))
    return fx.GraphModule(root, graph)


@torch.no_grad()
def test_the_results_are_those_of_the_module():
    module, x = graph_module(), torch.randn(3, 4)
    called = with_direct_calls(module)
    assert all(map(torch.equal, called(x), module(x)))
    with FlopCounterMode(display=False) as counter:
        called(x)
    assert counter.get_total_flops() == 2 * 3 * 4 * 4, "modes see the operators"


@torch.no_grad()
def test_current_weights_are_read():
    module, x = graph_module(), torch.randn(3, 4)
    called = with_direct_calls(module)
    module.weight = nn.Parameter(torch.randn(4, 4))
    module.scale = torch.randn(4)
    assert all(map(torch.equal, called(x), module(x)))


@torch.no_grad()
def test_eager_steps_run_no_python_code_around_operators_and_weights():
    model = fxcache.optimize(dit(), fxcache.Uniform(2))
    inputs = dit_inputs()
    model(inputs["sample"], torch.tensor(900.0), inputs["text"])
    variants = next(iter(optimized_engine(model).captures.values()))
    for variant in variants.made.values():
        function: Any = variant.function
        names = function.__func__.__code__.co_names
        assert "aten" not in names
        assert not {name for name in names if name.startswith("w_")}
        assert "aten" in type(variant.module).forward.__code__.co_names, "for torch.compile"


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@torch.no_grad()
def test_both_ways_are_exact(mode: Any):
    model, plain, inputs = fxcache.optimize(dit(), fxcache.Uniform(1)), dit(), dit_inputs()
    called = torch.compile(model, backend="eager") if mode == "compiled" else model
    for t in torch.linspace(900, 100, 3):
        found = called(inputs["sample"], t, inputs["text"])
        assert torch.equal(found, plain(inputs["sample"], t, inputs["text"]))
