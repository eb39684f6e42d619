"""Checks that requests which share calls on the device get the results that they get alone.

Each request has a thread and a stream. They begin at the same time, with different numbers of
steps, so that a shared call joins refreshes and first steps of different requests.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import fxcache
from bench.gpu.correctness import EVERY_THIRD, TOLERANCE
from bench.gpu.items import Item, require
from bench.gpu.optimizing import optimize
from bench.gpu.setup import Setup
from bench.gpu.trajectories import BATCH, STEPS, Trajectory, largest_error, model_of, trajectory
from fxcache.serving import Batcher

REQUESTS, MAX_BATCH = 6, 8
PICTURES = {"sample": (0,), "timestep": (0,), "text": (0,)}
ROUNDS = 10  # pairs of requests of the part "streams" for one round of this part


def items(setup: Setup) -> Iterator[Item]:
    for name in setup.models:
        yield Item(name, partial(check, setup, name, setup.dtypes[0]))


def check(setup: Setup, name: str, dtype: torch.dtype) -> dict[str, Any]:
    """Run requests alone and in a batcher, several times. Return errors, times and counts."""
    model = model_of(setup, name, dtype)
    capture = fxcache.CaptureConfig(dynamic=PICTURES)
    optimize(model, EVERY_THIRD, {"capture": capture})
    requests = [cut(trajectory(setup, name, dtype, seed), seed) for seed in range(REQUESTS)]
    expected = [alone(setup, model, request) for request in requests]
    began = time.monotonic()
    expected = [alone(setup, model, request) for request in requests]
    alone_seconds = time.monotonic() - began
    errors, seconds = [], []
    with Batcher(model, max_batch=MAX_BATCH) as batcher:
        for _ in range(max(2, setup.trajectories // ROUNDS)):
            began = time.monotonic()
            outputs = together(setup, batcher, requests)
            seconds.append(time.monotonic() - began)
            errors += [largest_error(x, y) for x, y in zip(outputs, expected, strict=True)]
        statistics = batcher.statistics
    found = {
        "requests": len(errors),
        "largest_error": float(torch.tensor(errors).max()),
        "tolerance": TOLERANCE[dtype],
        "steps": statistics.steps,
        "calls": statistics.calls,
        "mean_batch": statistics.mean_batch,
        "alone_seconds": alone_seconds,
        "together_seconds": min(seconds),
    }
    require(found["largest_error"] <= found["tolerance"], "requests equal those alone", found)
    require(found["calls"] < found["steps"], "requests share calls", found)
    return found


def cut(request: Trajectory, seed: int) -> Trajectory:
    """Return the request with its own number of steps, and with one timestep for each row."""
    steps = STEPS - seed % 3
    timesteps = request.timesteps[:steps, None].expand(steps, BATCH)
    return Trajectory(request.latents[:steps], timesteps, request.text)


def alone(setup: Setup, model: nn.Module, request: Trajectory) -> list[Tensor]:
    outputs = request.outputs(model, model)
    setup.runtime.synchronize()
    return outputs


def together(setup: Setup, batcher: Batcher, requests: Sequence[Trajectory]) -> list[list[Tensor]]:
    """Return the outputs of requests that run at the same time."""

    def one(request: Trajectory) -> list[Tensor]:
        stream = setup.runtime.Stream()
        with setup.runtime.stream(stream), batcher.start(len(request.latents)) as called:
            return request.copied().outputs(called)

    with ThreadPoolExecutor(len(requests)) as pool:
        outputs = list(pool.map(one, requests))
    setup.runtime.synchronize()
    return outputs
