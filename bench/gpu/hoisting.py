"""Checks the results, the memory and the time with hoisted values and offloaded weights."""

from collections.abc import Iterator, Mapping
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn

import fxcache
from bench.gpu.correctness import TOLERANCE
from bench.gpu.items import Item, require
from bench.gpu.optimizing import optimize
from bench.gpu.setup import Setup
from bench.gpu.timing import step_times_ms
from bench.gpu.trajectories import Trajectory, largest_error, model_of, trajectory

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "once": {"hoist": "once"},
    "table": {"hoist": "table"},
    "once, offload": {"hoist": "once", "offload": True},
    "table, offload": {"hoist": "table", "offload": True},
}


def items(setup: Setup) -> Iterator[Item]:
    for name in setup.models:
        for title, options in OPTIONS.items():
            call = partial(check, setup, name, setup.dtypes[0], options)
            yield Item(f"{name}, {title}", call)


def check(
    setup: Setup, name: str, dtype: torch.dtype, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Check that steps equal those of the plain module, and that offloaded weights return.

    Values that depend on the conditioning alone have the same bits. Values in a table of timesteps
    are computed in one batch, and are equal up to rounding.
    """
    model = model_of(setup, name, dtype)
    requests = [trajectory(setup, name, dtype, seed) for seed in range(2)]
    plain = [step for request in requests for step in request.outputs(model)]
    plain_ms = times_ms(setup, model, requests[0], None)
    before = setup.runtime.memory_allocated()
    optimize(model, fxcache.Uniform(1), options)
    hoisted = [step for request in requests for step in request.outputs(model, model)]
    report = fxcache.report(model)
    (capture,) = report.captures
    found = {
        "largest_error": largest_error(hoisted, plain),
        "allowed": {"once": 0.0, "table": TOLERANCE[dtype]}[options["hoist"]],
        "plain_ms": plain_ms,
        "hoisted_ms": times_ms(setup, model, requests[0], model),
        "hoisted_weight_bytes": capture.hoisted_weight_bytes,
        "offloaded_bytes": report.offloaded_bytes,
        "weights_bytes_elsewhere": bytes_elsewhere(model, setup.device),
        "allocated_before": before,
        "allocated_hoisted": setup.runtime.memory_allocated(),
    }
    fxcache.restore(model)
    found["restored_error"] = largest_error(requests[0].outputs(model), plain[: len(plain) // 2])
    require(found["largest_error"] <= found["allowed"], "hoisted steps equal plain ones", found)
    require(found["hoisted_weight_bytes"] > 0, "values are hoisted", found)
    offloads = options.get("offload", False)
    require((found["offloaded_bytes"] > 0) == offloads, "weights are offloaded if asked", found)
    require(bytes_elsewhere(model, setup.device) == 0, "all weights are back on the device", found)
    require(found["restored_error"] == 0, "the restored model equals the plain one", found)
    return found


def times_ms(
    setup: Setup, model: nn.Module, request: Trajectory, module: nn.Module | None
) -> float:
    """Return the median milliseconds of a step, over several runs of the request."""
    calls = [partial(request.outputs, model, module) for _ in range(setup.repeats)]
    runs = step_times_ms(setup, calls)
    return median(runs) / len(request.latents)


def bytes_elsewhere(model: nn.Module, device: str) -> int:
    """Return the bytes of the weights that are not on the device."""
    return sum(weight.nbytes for weight in model.parameters() if weight.device.type != device)
