"""Checks the results of steps in eager mode, compiled, and in CUDA graphs.

In eager mode a refresh must equal the plain module bit for bit. A compiled step must equal the
eager step up to a tolerance. Two graphs must be compiled, without a recompilation over two runs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import fxcache
from bench.gpu.items import Item, require
from bench.gpu.models import MODELS
from bench.gpu.optimizing import optimize
from bench.gpu.setup import CompileOptions, Setup
from bench.gpu.trajectories import (
    Trajectory,
    count_unequal,
    largest_error,
    model_of,
    relative_error,
    trajectory,
)

ALWAYS, EVERY_THIRD = fxcache.Uniform(1), fxcache.Uniform(3)
RUNS = 2
# Inductor sums in another order, and cuDNN multiplies float32 in TF32 with about 11 bits. bfloat16
# has 8 bits. Rounding errors accumulate over tens of layers.
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 3e-2}
DIFFERENCE = 3  # the least difference of reuse and recomputation, as a multiple of the tolerance


class Feature(NamedTuple):
    """Options of fxcache to check, and the number of graphs that must be compiled."""

    policy: fxcache.Policy
    options: Mapping[str, Any]
    graphs: int = 2


PLAIN = Feature(EVERY_THIRD, {})
FEATURES = {
    "hoisted": Feature(EVERY_THIRD, {"hoist": "once"}),
    "forecast": Feature(fxcache.Uniform(3), {"forecast": fxcache.Taylor(1)}),
    "int8 cache": Feature(EVERY_THIRD, {"dtype": torch.int8}),
    "kernels": Feature(EVERY_THIRD, {"kernels": True}),
    "signal": Feature(fxcache.FirstBlock(1e9), {}, graphs=3),
}


def items(setup: Setup) -> Iterator[Item]:
    """Yield plain options for every model and dtype, then each feature on one model."""
    for dtype in setup.dtypes:
        for name in MODELS:
            title = f"{name}, {str(dtype).removeprefix('torch.')}"
            yield Item(f"{title}, eager", partial(check_eager, setup, name, dtype))
            for way, options in setup.compiled.items():
                call = partial(check_compiled, setup, name, dtype, PLAIN, options)
                yield Item(f"{title}, {way}", call)
    for name in setup.features:
        for way, options in setup.compiled.items():
            call = partial(check_compiled, setup, "DiT", setup.dtypes[0], FEATURES[name], options)
            yield Item(f"DiT, {name}, {way}", call)


def check_eager(setup: Setup, name: str, dtype: torch.dtype) -> dict[str, Any]:
    """Check that refreshes equal the plain module bit for bit, and that reuse differs from it."""
    model = model_of(setup, name, dtype)
    requests = requests_to(setup, name, dtype)
    plain = outputs(requests, model)
    always = outputs(requests, optimize(model, ALWAYS, {}), optimised=True)
    fxcache.restore(model)
    reused = outputs(requests, optimize(model, EVERY_THIRD, {}), optimised=True)
    refreshes = refreshes_of(model)
    fxcache.restore(model)
    kept = [i for i in range(len(plain)) if i not in refreshes]
    difference = min(relative_error(reused[i], plain[i]) for i in kept)
    found: dict[str, Any] = {
        "unequal_steps_of_refresh_all": count_unequal(always, plain),
        "unequal_refreshes": count_unequal(
            [reused[i] for i in refreshes], [plain[i] for i in refreshes]
        ),
        "smallest_difference_of_reuse": difference,
    }
    require(
        found["unequal_steps_of_refresh_all"] == 0, "refresh-all equals the plain module", found
    )
    require(found["unequal_refreshes"] == 0, "a refresh equals the plain module", found)
    require(difference > DIFFERENCE * TOLERANCE[dtype], "reuse differs from recomputation", found)
    return found


def check_compiled(
    setup: Setup, name: str, dtype: torch.dtype, feature: Feature, options: CompileOptions
) -> dict[str, Any]:
    """Check that compiled steps equal eager ones up to the tolerance, without recompilation."""
    torch.compiler.reset()
    counters.clear()  # torch has no public count of the graphs that it compiled
    model = optimize(model_of(setup, name, dtype), feature.policy, feature.options)
    requests = requests_to(setup, name, dtype)
    eager = outputs(requests, model, optimised=True)
    called: Any = torch.compile(model, **options)
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = [step for r in requests for step in r.outputs(called, model)]
    (capture,) = fxcache.report(model).captures
    found: dict[str, Any] = {
        "largest_error": largest_error(compiled, eager),
        "tolerance": TOLERANCE[dtype],
        "graphs": counters["stats"]["unique_graphs"],
        "cuda_graphs_skipped": counters["inductor"]["cudagraph_skips"],
        "variants": [asdict(variant) for variant in capture.variants],
    }
    require(found["largest_error"] <= TOLERANCE[dtype], "compiled equals eager", found)
    require(found["graphs"] == feature.graphs, f"{feature.graphs} graphs are compiled", found)
    require(found["cuda_graphs_skipped"] == 0, "no CUDA graph is refused", found)
    return found


def requests_to(setup: Setup, name: str, dtype: torch.dtype) -> list[Trajectory]:
    return [trajectory(setup, name, dtype, seed) for seed in range(RUNS)]


def outputs(requests: list[Trajectory], model: nn.Module, optimised: bool = False) -> list[Tensor]:
    """Return the outputs of all steps of all requests, one request after the other."""
    module = model if optimised else None
    return [step for request in requests for step in request.outputs(model, module)]


def refreshes_of(model: nn.Module) -> list[int]:
    """Return the indices of the steps that refreshed, counted over all runs."""
    runs = fxcache.report(model).runs
    starts = [sum(run.steps for run in runs[:i]) for i in range(len(runs))]
    pairs = zip(starts, runs, strict=True)
    return [start + step for start, run in pairs for step in run.refreshes]
