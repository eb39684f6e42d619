"""Graphs made during a trace get their Python code when somebody asks for it, and then the same."""

from contextlib import nullcontext
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxcache._torch import with_code, without_code
from tests.capture.prepared import Prepared, calls, captured


class Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def graph() -> fx.Graph:
    made = fx.Graph()
    made.output(made.call_function(torch.add, (made.placeholder("x"), 1)))
    return made


def made_without_code() -> fx.GraphModule:
    with without_code():
        module = fx.GraphModule(Sum(), graph())
    assert "_code" not in vars(module)
    return module


def test_it_runs():
    assert torch.equal(made_without_code()(torch.ones(2)), torch.full((2,), 2.0))


@pytest.mark.parametrize("show", [lambda module: module.code, str])
def test_its_code_is_the_usual(show):
    assert show(made_without_code()) == show(fx.GraphModule(Sum(), graph()))


def test_a_change_of_the_graph_is_seen():
    module = fx.GraphModule(Sum(), graph())
    with without_code():
        (add,) = module.graph.find_nodes(op="call_function", target=torch.add)
        add.args = (add.args[0], 2)
        module.recompile()
        assert torch.equal(module(torch.ones(2)), torch.full((2,), 3.0))
    assert ", 2)" in module.code


def test_inner_graphs_get_theirs_too():
    outer = fx.Graph()
    outer.output(outer.call_module("inner", (outer.placeholder("x"),)))
    with without_code():
        module = fx.GraphModule({"inner": fx.GraphModule(Sum(), graph())}, outer)
    with_code(module)
    assert "_code" in vars(module)
    assert "_code" in vars(module.inner)


def test_other_threads_make_theirs_at_once():
    made: list[fx.GraphModule] = []
    with without_code():
        other = Thread(target=lambda: made.append(fx.GraphModule(Sum(), graph())))
        other.start()
        other.join()
    assert "_code" in vars(made[0])


def test_it_ends_with_an_error_too():
    before = fx.GraphModule.recompile
    with pytest.raises(ZeroDivisionError), without_code():
        raise ZeroDivisionError
    assert fx.GraphModule.recompile is before


@pytest.mark.parametrize(
    "prepare",
    [lambda x, t: x * 2, lambda x, t: (x * 2).add_(1)],
    ids=["one trace", "made functional"],
)
def test_a_capture_writes_less_code(prepare, monkeypatch):
    written: list[fx.Graph] = []
    python_code = fx.Graph.python_code

    def counted(graph: fx.Graph, *args: Any, **kwargs: Any) -> Any:
        written.append(graph)
        return python_code(graph, *args, **kwargs)

    monkeypatch.setattr(fx.Graph, "python_code", counted)
    captured(Prepared(prepare).eval(), *calls()[0])
    few = len(written)
    monkeypatch.setattr("fxcache.capture.isolation.without_code", nullcontext)
    captured(Prepared(prepare).eval(), *calls()[0])
    assert 2 * few < len(written) - few
