"""Tests with torch.compile's own backends: variants are compiled, and their results are right."""

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import fxcache
from fxcache._torch import compilations
from tests import tiny
from tests.loops import refreshes, sample
from tests.plain import dit, dit_inputs

POLICY = fxcache.Uniform(interval=4)


@pytest.mark.usefixtures("clean_dynamo")
def test_two_shapes_are_four_graphs():
    counter = CompileCounterWithBackend("eager")
    unet = fxcache.optimize(tiny.small_unet(), policy=POLICY)
    unet.compile(backend=counter, fullgraph=True, dynamic=False)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (1, 2, 1, 2):
            sample(unet, 6, **tiny.inputs(batch=batch))
    assert counter.frame_count == 4


@pytest.mark.sweep(1)
@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.usefixtures("shared_captures")
def test_dynamo_looks_at_each_frame_once(runs):
    """It looks at those of both variants, and at those of the dispatch around them."""
    unet = fxcache.optimize(tiny.small_unet(), policy=POLICY)
    with compilations() as found:
        unet.compile(backend=found.backend)
        for _ in range(runs):
            sample(unet, 6, **tiny.inputs())
    assert len(found.graphs) == 2
    assert found.frames == 4


@pytest.mark.usefixtures("clean_dynamo")
def test_the_compiled_reuse_graph_has_no_dead_nodes():
    counter = CompileCounterWithBackend("eager")
    unet = fxcache.optimize(tiny.small_unet(), policy=POLICY)
    unet.compile(backend=counter, fullgraph=True)
    sample(unet, 6, **tiny.inputs())

    def convolutions(graph: torch.fx.GraphModule) -> int:
        return sum("conv2d" in str(node.target) for node in graph.graph.nodes)

    full, reuse = counter.graphs
    assert convolutions(reuse) < convolutions(full) / 2


@pytest.mark.usefixtures("clean_dynamo")
def test_gradient_free_modes_share_the_graphs_of_a_run():
    counter = CompileCounterWithBackend("eager")
    unet = fxcache.optimize(tiny.small_unet(), policy=POLICY)
    model = torch.compile(unet, backend=counter)
    for seed in range(3):
        sample(model, 6, **tiny.inputs(seed=seed))
    assert counter.frame_count == 2
    assert refreshes(unet) == [[0, 4]] * 3


@pytest.mark.usefixtures("clean_dynamo")
@torch.no_grad()
def test_inductor_agrees_with_eager():
    text = dit_inputs()["text"]

    def predictions(model: Any) -> list[torch.Tensor]:
        with fxcache.session(model):
            return [
                model(dit_inputs(seed=step)["sample"], torch.tensor([900.0 - step]), text)
                for step in range(5)
            ]

    eager = predictions(fxcache.optimize(dit(2), policy=POLICY))
    model = fxcache.optimize(dit(2), policy=POLICY)
    model.compile(fullgraph=True)
    torch.testing.assert_close(predictions(model), eager, rtol=1e-4, atol=1e-4)
    assert refreshes(model) == [[0, 4]]


@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.parametrize(
    "mode",
    [
        None,
        "reduce-overhead",
        "max-autotune-no-cudagraphs",
    ],
)
@pytest.mark.slow
def test_inductor_agrees_with_eager_on_a_unet(mode):
    eager = sample(fxcache.optimize(tiny.small_unet(), policy=POLICY), 8, **tiny.inputs())
    unet = fxcache.optimize(tiny.small_unet(), policy=POLICY)
    unet.compile(fullgraph=True, mode=mode)
    compiled = sample(unet, 8, **tiny.inputs())
    # Inductor reorders float32 sums; eight steps carry the rounding along.
    torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-3)
    assert refreshes(unet) == [[0, 4]]
