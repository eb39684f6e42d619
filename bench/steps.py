"""Whole denoising steps on a GPU: ``python -m bench.steps --out FILE``.

Models at the sizes people run, with random weights in bfloat16: the original's step, eager and
compiled, against fxcache's refresh and reuse steps, eager, compiled, and in CUDA graphs. Medians
of paired runs, in milliseconds; realised speed-ups at intervals 2, 3 and 5, from refreshes and
reuses as they would take turns, against those from FLOPs.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn

import fxcache
from bench.denoisers import RECIPES, classes
from bench.environment import environment
from bench.frontier import MODELS
from fxcache.integrations.diffusers import example_inputs

INTERVALS = (2, 3, 5)
WARM, REPEATS = 3, 20
WAYS: dict[str, dict[str, Any] | None] = {
    "eager": None,
    "compiled": {},
    "graphs": {"mode": "reduce-overhead"},
}
Options = dict[str, Any]


def unet(name: str) -> Callable[[str], tuple[nn.Module, dict[str, Any]]]:
    from diffusers import UNet2DConditionModel

    def build(device: str) -> tuple[nn.Module, dict[str, Any]]:
        with torch.device(device):
            model = UNet2DConditionModel(**MODELS[name]).eval().to(torch.bfloat16)
            model.to(memory_format=torch.channels_last)
            return model, placed(example_inputs(model), device)

    return build


def flux(device: str) -> tuple[nn.Module, dict[str, Any]]:
    recipe = RECIPES["FluxTransformer2DModel"]
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model: Any = classes()[recipe.kind](**recipe.default).eval()
            return model, placed(recipe.inputs(model.config, True), device)
    finally:
        torch.set_default_dtype(default)


BUILDERS: dict[str, Callable[[str], tuple[nn.Module, dict[str, Any]]]] = {
    "Stable Diffusion 1.5, 512×512": unet("Stable Diffusion 1.5, 512×512"),
    "Stable Diffusion XL, 1024×1024": unet("Stable Diffusion XL, 1024×1024"),
    "FLUX.1, 1024×1024": flux,
}


def placed(value: Any, device: str) -> Any:
    """Random tensors like these, on ``device``, floats in bfloat16."""
    if isinstance(value, dict):
        return {name: placed(item, device) for name, item in value.items()}
    if not isinstance(value, Tensor):
        return value
    if value.is_floating_point():
        return torch.randn(value.shape, dtype=torch.bfloat16, device=device)
    return torch.ones(value.shape, dtype=value.dtype, device=device)


@torch.no_grad()
def original_ms(model: nn.Module, inputs: dict[str, Any], way: Options | None) -> float:
    called = model if way is None else torch.compile(model, **way)
    return median(timed(lambda: called(**inputs)) for _ in range(WARM + REPEATS))


@torch.no_grad()
def cached_ms(
    model: nn.Module, inputs: dict[str, Any], way: Options | None, options: Options
) -> tuple[float, float, Any]:
    """Milliseconds of a refresh and of a reuse, and what was captured."""
    fxcache.optimize(model, policy=fxcache.Uniform(2), **options)
    called: Any = model if way is None else torch.compile(model, **way)
    times: dict[bool, list[float]] = {True: [], False: []}
    with fxcache.session(model):
        for call in range(2 * (WARM + REPEATS)):
            elapsed = timed(lambda: called(**inputs))
            if call >= 2 * WARM:
                times[call % 2 == 0].append(elapsed)
    report = fxcache.report(model)
    (run,), (capture,) = report.runs, report.captures
    assert run.refreshes == list(range(0, 2 * (WARM + REPEATS), 2)), "refresh and reuse take turns"
    fxcache.restore(model)
    return median(times[True]), median(times[False]), capture


def timed(call: Callable[[], object]) -> float:
    synchronize()
    started = time.perf_counter()
    call()
    synchronize()
    return 1000 * (time.perf_counter() - started)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def speedup(original: float, refresh: float, reuse: float, interval: int) -> float:
    return interval * original / (refresh + (interval - 1) * reuse)


def results(build: Callable[[str], Any], device: str, options: Options) -> dict[str, Any]:
    """One model's step times by way of running it, and what becomes of the ideal speed-up."""
    model, inputs = build(device)
    found: dict[str, Any] = {}
    for name, way in WAYS.items():
        torch.compiler.reset()
        original = original_ms(model, inputs, way)
        refresh, reuse, capture = cached_ms(model, inputs, way, options)
        flops = capture.cut["full_flops"], capture.cut["full_flops"], capture.cut["reuse_flops"]
        found[name] = {"original_ms": original, "refresh_ms": refresh, "reuse_ms": reuse} | {
            f"interval {n}": {
                "realised": speedup(original, refresh, reuse, n),
                "ideal": speedup(*flops, n),
            }
            for n in INTERVALS
        }
        found[name]["kernels"] = capture.kernels
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=BUILDERS, action="append", help="default: all")
    parser.add_argument("--kernels", action="store_true", help="with the Triton kernels")
    parser.add_argument("--partial-evaluation", action="store_true")
    parser.add_argument("--hoist", choices=("once", "table"))
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no GPU: steps are timed on one")
    hoist: Literal["once", "table"] | None = given.hoist
    cache = {"kernels": given.kernels, "partial_evaluation": given.partial_evaluation}
    options = {"hoist": hoist, "cache": fxcache.CacheConfig(**cache)}
    found: dict[str, Any] = {**environment("cuda"), "options": {"hoist": hoist, **cache}}
    found["models"] = {}
    for name in given.model or BUILDERS:
        found["models"][name] = results(BUILDERS[name], "cuda", options)
        text = json.dumps(found, indent=2, ensure_ascii=False)
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
