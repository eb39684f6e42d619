"""What captured CUDA graphs demand, shown without a GPU: their results are read before they die.

The oracle is a backend that does to results what ``mode="reduce-overhead"`` does: what one graph
returned is overwritten as soon as the model is called again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxcache
from bench.inductor import compiled, gpu_pretended, on_fake_gpu
from fxcache.analysis.hoisting import HoistLevel
from fxcache.program import value_of
from tests import tiny
from tests.engines import optimized_engine, variants_of
from tests.loops import guided_sample
from tests.plain import dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")

STEPS = 9
OPTIONS: dict[str, dict[str, Any]] = {
    "uniform": {"policy": fxcache.Uniform(3)},
    "forecast": {"policy": fxcache.Uniform(3), "forecast": fxcache.Taylor(2)},
    "prefix": {"policy": fxcache.TeaCache(1.0, coefficients=(1.0, 0.0))},
    "residual of the first block": {"policy": fxcache.FirstBlock(0.3)},
    "hoisted": {"hoist": "once"},
    "table": {"hoist": "table"},
    "table and prefix": {
        "hoist": "table",
        "policy": fxcache.TeaCache(1.0, coefficients=(1.0, 0.0)),
    },
    "quantized": {"cache": fxcache.CacheConfig(dtype=torch.int8)},
    "partly evaluated": {"cache": fxcache.CacheConfig(partial_evaluation=True)},
}


class Replayed:
    """A backend whose graphs' results live until the model is called again.

    ``captured``: what would be captured: a graph after those that ran before it in the same call,
    with weights at these addresses. What is passed to it besides is copied in.
    """

    def __init__(self) -> None:
        self.graphs = 0
        self.results: list[Tensor] = []
        self.path: tuple[int, ...] = ()
        self.captured: set[tuple[Any, ...]] = set()

    def __call__(self, graph: fx.GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        self.graphs += 1
        number = self.graphs

        def run(*inputs: Any) -> Any:
            weights = [i.data_ptr() for i in inputs if isinstance(i, nn.Parameter)]
            assert weights
            self.path = (*self.path, number)
            self.captured.add((self.path, *weights))
            given = {t.untyped_storage().data_ptr() for t in inputs if isinstance(t, Tensor)}
            results = tuple(
                r.clone() if r.untyped_storage().data_ptr() in given else r for r in graph(*inputs)
            )
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


@torch.no_grad()
def denoised(call: Callable[..., Any], seed: int = 0) -> Tensor:
    """Both halves of the guidance one after the other; the first outlives the second's call."""
    with_text, without = dit_inputs(seed=seed), dit_inputs(seed=seed + 10)
    latent, timesteps = with_text["sample"], torch.linspace(900, 100, STEPS)
    for t in timesteps:
        first = call(latent, t, with_text["text"])
        second = call(latent, t, without["text"])
        latent = latent - 0.1 * (second + 2 * (first - second))
    return latent


@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_no_overwritten_result_is_read(options):
    plain = fxcache.optimize(dit(), **options)
    expected = [denoised(plain, seed) for seed in (0, 1)]

    replayed = Replayed()
    model = fxcache.optimize(dit(), **options)
    call = replayed.calling(torch.compile(model, backend=replayed))
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = [denoised(call, seed) for seed in (0, 1)]

    assert all(map(torch.equal, found, expected))
    graphs = 3 if options.get("policy", fxcache.Uniform()).observes else 2
    assert replayed.graphs == len(replayed.captured) == graphs, "nothing is captured again"
    assert reuses(model) == reuses(plain) > 0


def reuses(model: nn.Module) -> int:
    engine = optimized_engine(model)
    return sum(not step.decision.refresh for run in engine.runs for step in run.steps)


@pytest.mark.usefixtures("clean_dynamo")
def test_guidance_keeps_no_result_of_a_graph():
    cache = fxcache.GuidanceCache(interval=3, start=0.2)
    expected = guided_sample(fxcache.optimize(tiny.small_unet(), guidance=cache))
    replayed = Replayed()
    model = fxcache.optimize(tiny.small_unet(), guidance=cache)
    found = guided_sample(replayed.calling(torch.compile(model, backend=replayed)))
    assert torch.equal(found, expected)


@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.filterwarnings(r"ignore:\s*Online softmax is disabled:UserWarning")  # torch 2.11
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_inductor_would_capture_every_graph(options):
    """It refuses graphs that leave the GPU, and some operators."""
    model = dit().to("meta").requires_grad_(False)
    inputs = {"timestep": torch.tensor(900.0), **dit_inputs()}
    on_meta = {name: value.to("meta") for name, value in inputs.items()}
    with gpu_pretended():
        fxcache.optimize(model, capture=fxcache.CaptureConfig(example_inputs=on_meta), **options)
    variants = variants_of(model)
    if options.get("hoist"):
        variants.variant(variants.all, variants.continued, HoistLevel.PER_STEP)
    weights = torch.zeros(1, 2, device="meta")  # of a forecast: no value of the graph's
    for module in variants.modules:
        given = [value_of(node) for node in module.graph.find_nodes(op="placeholder")]
        called = on_fake_gpu(module, [weights if value is None else value for value in given])
        kernels, refused = compiled(called)
        assert kernels
        assert refused is None
