"""Checks that two requests on two streams do not read or overwrite each other's cached values.

The stream of the first request is delayed, while the host has finished it. So its buffers may be
given to the second request, or are freed if there is a session. If they are written too early, one
of the two requests has wrong results.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

import fxcache
from bench.gpu.items import Item, require
from bench.gpu.optimizing import optimize
from bench.gpu.setup import Setup
from bench.gpu.trajectories import Trajectory, count_unequal, largest_error, model_of, trajectory

REUSES = fxcache.Uniform(3)

# The step of the first request before which its stream is delayed; -1 for no delay.
DELAYED = {"delayed before a reuse": 1, "delayed before a refresh": 0, "not delayed": -1}
SESSIONS = {"": False, ", in sessions": True}


def items(setup: Setup) -> Iterator[Item]:
    for name in setup.models:
        for (title, delayed), (where, in_session) in product(DELAYED.items(), SESSIONS.items()):
            run = partial(check, setup, name, delayed, in_session)
            yield Item(f"{name}, {title}{where}", run)


def check(setup: Setup, name: str, delayed: int, in_session: bool) -> dict[str, Any]:
    """Run pairs of requests on two streams, and compare with one request after the other.

    Args:
        setup: The device, the sizes and the number of pairs.
        name: The name of the model.
        delayed: The step before which the first request's stream is delayed; -1 for none.
        in_session: Whether each request has a session, which frees its buffers at the end.
    """
    dtype = setup.dtypes[0]
    model = model_of(setup, name, dtype)
    optimize(model, REUSES, {})
    originals = [trajectory(setup, name, dtype, seed) for seed in range(2)]
    expected = [one_after_the_other(setup, model, request) for request in originals]
    streams = [setup.runtime.Stream() for _ in range(2)]
    wrong, error = [0, 0], 0.0
    for _ in range(setup.trajectories):
        pair = [
            started(setup, model, request, stream, hold, in_session)
            for request, stream, hold in zip(originals, streams, (delayed, -1), strict=True)
        ]
        setup.runtime.synchronize()
        for i, outputs in enumerate(pair):
            wrong[i] += count_unequal(outputs, expected[i]) > 0
            error = max(error, largest_error(outputs, expected[i]))
    found = {
        "pairs": setup.trajectories,
        "wrong_first": wrong[0],
        "wrong_second": wrong[1],
        "largest_error": error,
        "cached_bytes": fxcache.report(model).cached_bytes,
    }
    require(sum(wrong) == 0, "requests on two streams equal those on one stream", found)
    return found


def one_after_the_other(setup: Setup, model: nn.Module, request: Trajectory) -> list[Tensor]:
    outputs = request.copied().outputs(model)
    setup.runtime.synchronize()
    return outputs


@torch.no_grad()
def started(
    setup: Setup,
    model: nn.Module,
    original: Trajectory,
    stream: Any,
    delayed: int,
    in_session: bool,
) -> list[Tensor]:
    """Start a request on a stream, and return its outputs, which may not be computed yet.

    The request's tensors are freed at the end. They were allocated on the stream, so that PyTorch
    reuses their memory only for later work on the same stream.
    """
    session: AbstractContextManager[object] = nullcontext()
    if in_session:
        session = fxcache.session(model)
    with setup.runtime.stream(stream), session:
        request = original.copied()
        outputs = []
        for step, timestep in enumerate(request.timesteps):
            if step == delayed:
                setup.runtime._sleep(setup.delay_cycles)
            outputs.append(model(request.latents[step], timestep, request.text))
    return outputs
