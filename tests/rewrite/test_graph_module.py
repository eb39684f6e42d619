"""Tests that weights can be replaced while another thread runs the graph."""

import sys
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from fxcache.rewrite.graph_module import graph_module, rebind

ROUNDS = 3000


def variant(weights: dict[str, Tensor]) -> fx.GraphModule:
    """Return a graph that sums its weights, read one after another."""
    graph = fx.Graph()
    total = graph.get_attr("weight_0")
    for name in list(weights)[1:]:
        total = graph.call_function(torch.add, (total, graph.get_attr(name)))
    graph.output(total)
    return graph_module(graph, weights, "Sum", {})


def named(kind: Callable[[Tensor], Tensor], value: float) -> dict[str, Tensor]:
    return {f"weight_{i}": kind(torch.tensor(value)) for i in range(4)}


def parameter(value: Tensor) -> Tensor:
    return nn.Parameter(value, requires_grad=False)


def buffer(value: Tensor) -> Tensor:
    return value


KINDS = [parameter, buffer]


@pytest.mark.parametrize("before", KINDS)
@pytest.mark.parametrize("after", KINDS)
def test_weights_are_replaced_under_their_names(before, after):
    old, new = named(before, 1.0), named(after, 2.0)
    module = variant(old)
    assert module() == 4
    rebind(module, new)
    assert module() == 8
    assert len(list(module.parameters())) == (4 if after is parameter else 0)
    assert len(list(module.buffers())) == (4 if after is buffer else 0)
    rebind(module, old)
    assert module() == 4


@pytest.mark.parametrize("after", KINDS)
def test_a_thread_runs_the_graph_while_another_replaces_its_weights(after):
    one, two = named(parameter, 1.0), named(after, 2.0)
    module, done = variant(one), threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not done.is_set():
                assert 4 <= module() <= 8
        except BaseException as error:
            failures.append(error)

    thread, interval = threading.Thread(target=run), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns between any two instructions
    try:
        thread.start()
        for _ in range(ROUNDS):
            rebind(module, two)
            rebind(module, one)
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert not failures
