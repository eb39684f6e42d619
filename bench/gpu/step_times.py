"""Times whole denoising steps of SD 1.5, FLUX.1, SDXL and Wan 1.3B.

It compares the steps of the original, eager and compiled, with runs of fxcache that refresh at
every second, third and fifth step, and with the ideal speed-up from FLOPs.
"""

import gc
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import fxcache
from bench.gpu.items import Item
from bench.gpu.optimizing import optimize
from bench.gpu.setup import CompileOptions, Setup
from bench.gpu.timing import step_times_ms

INTERVALS = (2, 3, 5)
LENGTH = 30  # steps of a run at one interval, a multiple of each interval
WARMUP = 8  # steps with a refresh at every second one; CUDA graphs are captured at the third call


class Way(NamedTuple):
    """A way to run. ``mode`` is "eager", or the name of options of torch.compile in the setup."""

    mode: str
    options: Mapping[str, Any]


WAYS = {
    "eager": Way("eager", {}),
    "compiled": Way("compiled", {}),
    "graphs": Way("graphs", {}),
    "eager, kernels": Way("eager", {"kernels": True}),
    "graphs, hoisted": Way("graphs", {"hoist": "table"}),
}


def items(setup: Setup) -> Iterator[Item]:
    for way in setup.ways:
        for name in setup.denoisers:
            yield Item(f"{name}, {way}", partial(measure, setup, name, WAYS[way]))


def measure(setup: Setup, name: str, way: Way) -> dict[str, Any]:
    """Return the milliseconds of the original and of fxcache, and the speed-ups."""
    # diffusers may be installed from wheels after this module was imported.
    models = import_module("bench.gpu.diffusers_models")
    model, inputs = models.build(setup, models.DENOISERS[name])
    compiled = setup.compiled.get(way.mode)
    torch.compiler.reset()
    setup.runtime.reset_peak_memory_stats()
    original = original_ms(setup, model, inputs, compiled)
    original_bytes, original_held = setup.runtime.max_memory_allocated(), held_bytes(setup)
    torch.compiler.reset()  # frees the memory of the original's CUDA graphs
    found = cached_ms(setup, model, inputs, way, compiled)
    (capture,) = fxcache.report(model).captures
    flops = capture.cut["full_flops"], capture.cut["full_flops"], capture.cut["reuse_flops"]
    ideal = {n: speedup(*flops, n) for n in INTERVALS}
    realised = {n: original * LENGTH / sum(found[n]) for n in INTERVALS}
    return {
        "original_ms": original,
        "refresh_ms": median(t for n in INTERVALS for t in found[n][::n]),
        "reuse_ms": median(t for n in INTERVALS for i, t in enumerate(found[n]) if i % n),
        "intervals": {
            n: {
                "realised": realised[n],
                "ideal": ideal[n],
                "realised_over_ideal": realised[n] / ideal[n],
            }
            for n in INTERVALS
        },
        "cut": capture.cut["name"],
        "variants": [asdict(variant) for variant in capture.variants],
        "original_peak_bytes": original_bytes,
        "peak_bytes": setup.runtime.max_memory_allocated(),
        "original_held_bytes": original_held,
        "held_bytes": held_bytes(setup),
    }


def held_bytes(setup: Setup) -> int:
    """Return the bytes that the process holds between two steps: weights, caches, CUDA graphs."""
    gc.collect()
    setup.runtime.synchronize()
    setup.runtime.empty_cache()
    return int(setup.runtime.memory_reserved())


@torch.no_grad()
def original_ms(
    setup: Setup, model: nn.Module, inputs: dict[str, Any], compiled: CompileOptions | None
) -> float:
    """Return the median milliseconds of a step of the original model."""
    called = in_mode(model, compiled)
    calls = [partial(called, **at(inputs, t)) for t in schedule(inputs, WARMUP + LENGTH)]
    return median(step_times_ms(setup, calls)[WARMUP:])


@torch.no_grad()
def cached_ms(
    setup: Setup,
    model: nn.Module,
    inputs: dict[str, Any],
    way: Way,
    compiled: CompileOptions | None,
) -> dict[int, list[float]]:
    """Return the milliseconds of each step, by interval. The model stays optimised."""
    starts = {n: WARMUP + i * LENGTH for i, n in enumerate(INTERVALS)}
    refreshes = [
        *range(0, WARMUP, 2),
        *(start + step for n, start in starts.items() for step in range(0, LENGTH, n)),
    ]
    steps = WARMUP + LENGTH * len(INTERVALS)
    optimize(model, fxcache.Explicit(tuple(refreshes)), way.options)
    called = in_mode(model, compiled)
    calls = [partial(called, **at(inputs, t)) for t in schedule(inputs, steps)]
    with fxcache.session(model, num_steps=steps):
        times = step_times_ms(setup, calls)
    (run,) = fxcache.report(model).runs
    assert run.refreshes == refreshes, "the steps refresh as listed"
    return {n: times[start : start + LENGTH] for n, start in starts.items()}


def in_mode(model: nn.Module, compiled: CompileOptions | None) -> Any:
    return model if compiled is None else torch.compile(model, **compiled)


def schedule(inputs: dict[str, Any], steps: int) -> list[Tensor]:
    """Return decreasing timesteps: elements of one tensor, in the shape that the model takes."""
    like: Tensor = inputs["timestep"]
    timesteps = torch.linspace(999, 1, steps, device=like.device).to(like.dtype)
    return [timestep.expand(like.shape) for timestep in timesteps]


def at(inputs: dict[str, Any], timestep: Tensor) -> dict[str, Any]:
    return {**inputs, "timestep": timestep}


def speedup(original: float, refresh: float, reuse: float, interval: int) -> float:
    """Return the speed-up with one refresh in each ``interval`` steps."""
    return interval * original / (refresh + (interval - 1) * reuse)
