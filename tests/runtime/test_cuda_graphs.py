"""What captured CUDA graphs demand, shown without a GPU: their results are read before they die.

The oracle is a backend that does to results what ``mode="reduce-overhead"`` does: what one graph
returned is overwritten as soon as the model is called again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.utils import make_boxed_func

import fxcache
from bench.denoisers import RECIPES
from fxcache._torch.fake_gpu import compiled, gpu_pretended, on_fake_gpu
from fxcache.analysis.hoisting import HoistLevel
from fxcache.program import copy_graph, value_of
from fxcache.rewrite.graph_module import graph_module
from fxcache.rewrite.variants import NOTHING
from tests import tiny
from tests.engines import optimized_engine, variants_of
from tests.loops import guided_sample
from tests.plain import dit, dit_inputs
from tests.runtime.replayed import Replayed

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
# In CI; the others with `make test-slow`.
SAMPLED = {"forecast", "quantized", "table and prefix"}


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


@pytest.mark.sweep(3)
@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_no_overwritten_result_is_read(options):
    plain = fxcache.optimize(dit(3), **options)
    expected = [denoised(plain, seed) for seed in (0, 1)]

    replayed = Replayed()
    model = fxcache.optimize(dit(3), **options)
    call = replayed.calling(torch.compile(model, backend=replayed))
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = [denoised(call, seed) for seed in (0, 1)]

    assert all(map(torch.equal, found, expected))
    prefixes = bool(options.get("policy", fxcache.Uniform()).observes)
    assert replayed.graphs == prefixes + 2
    assert len(replayed.captured) == prefixes + 2 * 2, "the halves have separate buffers"
    assert reuses(model) == reuses(plain) > 0


def reuses(model: nn.Module) -> int:
    engine = optimized_engine(model)
    return sum(not step.decision.refresh for run in engine.runs for step in run.steps)


CUTS: list[Any] = [f"layers.{i}.{part}" for i in range(2) for part in ("out", "mlp")]


@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.parametrize("forecast", [None, fxcache.Taylor(1)], ids=str)
def test_cached_values_are_in_memory_once(forecast):
    """No capture has memory for them: graphs read and write the buffers of the cache itself."""
    replayed = Replayed()
    model = fxcache.optimize(dit(3), fxcache.Uniform(3), cut=CUTS, forecast=forecast, hoist=None)
    call = replayed.calling(torch.compile(model, backend=replayed))
    inputs = dit_inputs()
    with torch.no_grad():
        for t in torch.linspace(900, 100, STEPS):
            call(timestep=t, **inputs)
    values = [value_of(point.value) for point in variants_of(model).plan.points]
    shape = values[0].shape
    assert len(values) == len(CUTS)
    assert shape not in replayed.pooled
    (trajectory,) = optimized_engine(model).store.trajectories
    order = forecast.order if forecast else 0
    assert trajectory.nbytes == (1 + order) * sum(value.nbytes for value in values)


@pytest.mark.usefixtures("clean_dynamo")
def test_graphs_write_only_to_inputs_that_are_static_for_inductor():
    """Inductor would not capture them otherwise."""
    written: list[set[int]] = []
    static: list[set[int]] = []

    def compile_graph(graph: fx.GraphModule, _: Sequence[Any]) -> Any:
        metadata: Any = torch._guards.TracingContext.get().fw_metadata
        written.append({i for i, given in enumerate(metadata.input_info) if given.mutates_data})
        static.append(set(metadata.static_input_indices))
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=compile_graph, keep_inference_input_mutations=True)
    model = fxcache.optimize(dit(3), fxcache.Uniform(3), cut=CUTS, forecast=fxcache.Taylor(1))
    denoised(torch.compile(model, backend=backend))
    assert [len(indices) for indices in written] == [2 * len(CUTS), 0]
    assert all(w <= s for w, s in zip(written, static, strict=True))


@pytest.mark.usefixtures("clean_dynamo")
def test_the_next_session_needs_no_other_captures():
    """It takes over the buffers of the last one, although that was closed."""
    replayed = Replayed()
    model = fxcache.optimize(dit(3), fxcache.Uniform(3), hoist=None)
    call = replayed.calling(torch.compile(model, backend=replayed))
    for _ in range(3):
        kept = [torch.empty(2, 16, 16) for _ in range(3)]  # noqa: F841, takes freed memory
        with fxcache.session(model):
            denoised(call)
    assert len(replayed.captured) == 2 * 2
    fxcache.clear(model)
    assert fxcache.report(model).cached_bytes == 0


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.usefixtures("clean_dynamo")
def test_inductor_frees_each_value_after_it_is_stored():
    """A refresh needs the memory of a plain step, which a CUDA graph keeps, and of one value."""
    recipe = RECIPES["SD3Transformer2DModel"]
    with torch.device("meta"):
        model: Any = SD3Transformer2DModel(**{**recipe.default, "num_layers": 4}).eval()
        inputs = recipe.inputs(model.config, True)
    cuts: list[Any] = [
        f"transformer_blocks.{i}.{part}" for i in range(3) for part in ("attn.to_out.0", "ff")
    ]
    capture = fxcache.CaptureConfig(example_inputs=inputs)
    fxcache.optimize(model, fxcache.Uniform(3), cut=cuts, capture=capture, hoist=None)
    variants = variants_of(model)
    size = value_of(variants.plan.points[0].value).nbytes
    program = graph_module(copy_graph(variants.program.graph)[0], variants.weights, "plain", {})
    plain = peak_bytes(program)
    assert peak_bytes(variants.variant(NOTHING, in_place=True).module) <= plain + size
    assert peak_bytes(variants.full) >= plain + (len(cuts) - 2) * size, "results are kept"


def peak_bytes(module: fx.GraphModule) -> int:
    """Return the memory that a graph compiled by Inductor needs besides its inputs."""
    given = [value_of(node) for node in module.graph.find_nodes(op="placeholder")]
    return compiled(on_fake_gpu(module, given, torch.device("cpu"))).peak_bytes


@pytest.mark.usefixtures("clean_dynamo")
def test_guidance_keeps_no_result_of_a_graph():
    cache = fxcache.GuidanceCache(interval=3, start=0.2)
    expected = guided_sample(fxcache.optimize(tiny.small_unet(), guidance=cache))
    replayed = Replayed()
    model = fxcache.optimize(tiny.small_unet(), guidance=cache)
    found = guided_sample(replayed.calling(torch.compile(model, backend=replayed)))
    assert torch.equal(found, expected)


@pytest.mark.sweep(1)
@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.filterwarnings(r"ignore:\s*Online softmax is disabled:UserWarning")  # torch 2.11
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=name, marks=[] if name in SAMPLED else pytest.mark.slow)
        for name, options in OPTIONS.items()
    ],
)
def test_inductor_would_capture_every_graph(options):
    """It refuses graphs that leave the GPU, and some operators."""
    model = dit(3).to("meta").requires_grad_(False)
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
        decision = compiled(called)
        assert decision.kernels
        assert decision.refused is None
