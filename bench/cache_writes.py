"""The time that a refresh takes to store its values, for a plan with many cache points.

``python -m bench.cache_writes`` stores small values at 114 cache points, as FLUX.1 has with a cache
point for each attention and each MLP. It compares one batched write with single writes, and reports
microseconds of CPU time on one thread. Both ways are measured alternately.
"""

import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench.output import run
from fxcache.codecs.codec import Codec
from fxcache.codecs.history import History
from fxcache.codecs.identity import Identity
from fxcache.forecasts import Taylor
from fxcache.runtime.feature_cache import FeatureCache

POINTS, ROUNDS, WRITES = 114, 15, 200
SHAPE = (1, 4, 8)


def values_of(count: int) -> list[Tensor]:
    return [torch.randn(SHAPE) for _ in range(count)]


def batched(codec: Codec, count: int) -> Callable[[int], None]:
    """Return a function that stores a step's values as the engine does."""
    cache, values = FeatureCache(), dict(enumerate(values_of(count)))
    cache.write(values, 0, codec, "a capture", fresh=True)
    return lambda step: cache.write(values, step, codec, "a capture", fresh=False)


def one_by_one(order: int, count: int) -> Callable[[int], None]:
    """Return a function that stores each value separately, after a check of its buffer."""
    values = values_of(count)
    stored = [[torch.zeros(SHAPE) for _ in range(order + 1)] for _ in values]

    def store(step: int) -> None:
        del step
        for buffers, value in zip(stored, values, strict=True):
            if buffers[0].shape != value.shape:
                raise AssertionError("the buffers must have the shape of the values")
            for level, buffer in enumerate(buffers):
                following = (value - buffer) / 1 if level < order else value
                buffer.copy_(value)
                value = following

    return store


def microseconds(store: Callable[[int], None], start: int) -> float:
    """Return the mean CPU time of one refresh in microseconds."""
    started = time.thread_time()
    for step in range(start, start + WRITES):
        store(step)
    return 1e6 * (time.thread_time() - started) / WRITES


@torch.no_grad()
def measure() -> dict[str, Any]:
    ways: dict[str, Callable[[int], None]] = {}
    for order, codec in ((0, Identity()), (1, History(Taylor(1)))):
        ways[f"order {order}"] = batched(codec, POINTS)
        ways[f"order {order}, one by one"] = one_by_one(order, POINTS)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(ROUNDS):
        for name, store in ways.items():
            times[name].append(microseconds(store, 1 + round_ * WRITES))
    return {
        "refresh_us": {name: round(median(found), 1) for name, found in times.items()},
        "points": POINTS,
        "shape": list(SHAPE),
        "device": f"CPU, {platform.machine()}, one thread",
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    run(__doc__, measure)
