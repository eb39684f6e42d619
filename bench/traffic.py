"""The bytes that a reuse step moves on a GPU: ``python -m bench.traffic --out FILE``. Needs no GPU.

It counts, for full-size models in bfloat16, the bytes that these read and write: the kernels that
Inductor chooses for an H200, the operators of eager mode with and without the kernels of fxcache,
and the kernels that Inductor would choose around those of fxcache. Bytes do not determine times,
because kernels differ in their bandwidth.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import fxcache
from bench.eager_traffic import eager
from bench.hoisting import UNETS, model_and_inputs
from fxcache import operators
from fxcache._torch.fake_gpu import FakeGPUCall, Kernel, compiled, gpu_pretended, on_fake_gpu
from fxcache.analysis.hoisting import HoistLevel
from fxcache.program import value_of
from fxcache.rewrite.variant import Variant
from fxcache.rewrite.variants import Variants
from fxcache.runtime.module import engine_of

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "partial evaluation": {"cache": fxcache.CacheConfig(partial_evaluation=True)},
    "hoisted": {"hoist": "table"},
}
MODELS: dict[str, dict[str, Any]] = {
    **{name: {"cut": 0} for name in UNETS},
    "FLUX.1-dev, 1024×1024": {"cut": ("transformer_blocks.1", "single_transformer_blocks.37")},
}
LEFT_TO_INDUCTOR = ("concat_group_norm_silu", "forecast_read", "residual_norm_modulate")
FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


def half(value: Any) -> Any:
    """Convert tensors to meta, and floating-point tensors to bfloat16."""
    if isinstance(value, dict):
        return {name: half(item) for name, item in value.items()}
    if not isinstance(value, Tensor):
        return value
    return value.to("meta", torch.bfloat16 if value.is_floating_point() else value.dtype)


def reuse_step(
    model: nn.Module, inputs: dict[str, Any], **options: Any
) -> tuple[Variants, Variant]:
    """Return the graph of a reuse step, with the memory formats of a GPU."""
    with gpu_pretended():
        fxcache.optimize(model, capture=fxcache.CaptureConfig(example_inputs=inputs), **options)
    engine = engine_of(model)
    assert engine is not None
    (variants,) = engine.captures.values()
    level = HoistLevel.PER_STEP if options.get("hoist") else HoistLevel.NOTHING
    found = variants.variant(variants.all, variants.continued, level)
    fxcache.restore(model)
    return variants, found


def inputs_of(variants: Variants, variant: Variant) -> list[Any]:
    """Return the inputs of ``variant``. Statistics have no recorded value in the graph."""
    inputs = variant.module.graph.find_nodes(op="placeholder")
    given = [value_of(node) for node in inputs[: len(inputs) - len(variant.signature.moments)]]
    points = variants.plan.points
    return given + [
        moments.of(value_of(points[moments.point].value)) for moments in variant.signature.moments
    ]


def totals(kernels: list[Kernel]) -> dict[str, int]:
    return {"launches": len(kernels), "bytes": sum(kernel.nbytes for kernel in kernels)}


def inductor_kernels(called: FakeGPUCall) -> list[Kernel]:
    """Return the kernels of Inductor. Require that it would capture a CUDA graph."""
    found = compiled(called)
    if found.refused:
        raise AssertionError(f"no CUDA graph of {type(called.module).__name__}: {found.refused}")
    return found.kernels


@contextmanager
def kernels_in_compiled_graphs() -> Iterator[None]:
    """Let all operators launch their kernels in compiled graphs inside the block."""
    with ExitStack() as stack:
        for name in LEFT_TO_INDUCTOR:
            operator = import_module(f"fxcache.kernels.{name}.op")
            stack.enter_context(patch.object(operator, "is_traced", lambda _: False))
        yield


def traffic_of(model: nn.Module, inputs: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the traffic of a reuse step with these options, for each way to run it."""
    variants, plain = reuse_step(model, inputs, **options)
    without_kernels = on_fake_gpu(plain.module, inputs_of(variants, plain))
    cache = replace(options.get("cache", fxcache.CacheConfig()), kernels=True)
    variants, fused = reuse_step(model, inputs, **{**options, "cache": cache})
    with_kernels = on_fake_gpu(fused.module, inputs_of(variants, fused))
    ways = {
        "eager": totals(eager(without_kernels)),
        "eager, kernels": totals(eager(with_kernels)),
        "Inductor": totals(inductor_kernels(without_kernels)),
    }
    if totals(inductor_kernels(with_kernels)) != ways["Inductor"]:
        raise AssertionError("kernels=True must not change a compiled step")
    with kernels_in_compiled_graphs():
        return ways | {"Inductor around kernels": totals(inductor_kernels(with_kernels))}


def results(name: str) -> dict[str, Any]:
    """Return the traffic of one model by memory format and options."""
    built, inputs = model_and_inputs(name)
    model: Any = built.to(torch.bfloat16).requires_grad_(False)
    inputs = half(inputs)
    formats = FORMATS if name in UNETS else {"contiguous": FORMATS["contiguous"]}
    steps: dict[str, Any] = {}
    for title, form in formats.items():
        model.to(memory_format=form)
        formatted = {key: in_format(value, form) for key, value in inputs.items()}
        steps[title] = {
            option: traffic_of(model, formatted, MODELS[name] | given)
            for option, given in OPTIONS.items()
        }
    return steps


def in_format(value: Any, form: torch.memory_format) -> Any:
    picture = isinstance(value, Tensor) and value.dim() == 4
    return value.contiguous(memory_format=form) if picture else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, action="append", help="default: all")
    arguments = parser.parse_args()
    operators.DEVICES = ("cuda", "meta")  # captures on meta use the kernels too
    steps = {name: results(name) for name in arguments.model or MODELS}
    text = json.dumps({"torch": torch.__version__, "models": steps}, indent=2, ensure_ascii=False)
    arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
