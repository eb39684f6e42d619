"""Checks native code: artifacts that AOTInductor compiled for the device.

Every step of the native code must equal the eager step up to a tolerance.
"""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

import fxcache
from bench.gpu.correctness import EVERY_THIRD, TOLERANCE
from bench.gpu.items import Item, require
from bench.gpu.optimizing import optimize
from bench.gpu.setup import Setup
from bench.gpu.timing import step_times_ms
from bench.gpu.trajectories import STEPS, Trajectory, largest_error, model_of, trajectory

ARTIFACT = "artifact"


def items(setup: Setup) -> Iterator[Item]:
    for name in setup.models:
        yield Item(name, partial(check, setup, name, setup.dtypes[0]))


def check(setup: Setup, name: str, dtype: torch.dtype) -> dict[str, Any]:
    """Export a model, compile the artifact, and compare its steps with those of the model."""
    model = optimize(model_of(setup, name, dtype), EVERY_THIRD, {})
    request = trajectory(setup, name, dtype, seed=0)
    expected = request.outputs(model, model)
    with tempfile.TemporaryDirectory() as folder:
        artifact = fxcache.export(model, Path(folder) / ARTIFACT)
        began = time.monotonic()
        compiled = fxcache.compile_artifact(artifact, STEPS, device=setup.device)
        seconds = time.monotonic() - began
        native = fxcache.load(artifact, device=setup.device, native=True, allow_unsigned=True)
        outputs = request.outputs(native, native)
        found: dict[str, Any] = {
            "largest_error": largest_error(outputs, expected),
            "tolerance": TOLERANCE[dtype],
            "notices": fxcache.report(native).notices,
            "compile_seconds": seconds,
            "compiled_bytes": sum(file.stat().st_size for file in compiled.iterdir()),
            "eager_ms": step_ms(setup, model, request),
            "native_ms": step_ms(setup, native, request),
        }
    require(found["largest_error"] <= found["tolerance"], "native equals eager", found)
    require(not found["notices"], "every graph runs as native code", found)
    return found


def step_ms(setup: Setup, model: nn.Module, request: Trajectory) -> float:
    """Return the median milliseconds of a step at this interval, over several runs."""
    calls = [partial(request.outputs, model, model) for _ in range(setup.repeats)]
    return median(step_times_ms(setup, calls)) / len(request.latents)
