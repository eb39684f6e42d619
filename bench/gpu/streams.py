"""Two requests on two streams: none reads or overwrites what the other one has cached.

The first request is held up on its stream, while the host is done with it, so that its buffers are
free to be given to the second, or, in a session, to anyone. If they are written to too early, one
of the two goes wrong.
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

# At which step of the first request its stream is held up: no step, a refresh, a reuse.
DELAYED = {"held up before a reuse": 1, "held up before a refresh": 0, "not held up": -1}
SESSIONS = {"": False, ", in sessions": True}


def items(setup: Setup) -> Iterator[Item]:
    for name in setup.models:
        for (title, delayed), (where, in_session) in product(DELAYED.items(), SESSIONS.items()):
            run = partial(check, setup, name, delayed, in_session)
            yield Item(f"{name}, {title}{where}", run)


def check(setup: Setup, name: str, delayed: int, in_session: bool) -> dict[str, Any]:
    """Run pairs of requests on two streams, and compare with one request after the other.

    Args:
        setup: What is run, and how often.
        name: Of the model.
        delayed: The step before which the first request's stream is held up; -1 for none.
        in_session: Whether each request has a session, whose buffers are freed at its end.
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
    require(sum(wrong) == 0, "requests on two streams are as on one", found)
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
    """The outputs of a request, which the stream may still have to compute.

    The request's own tensors die here. They were made on the stream, so that PyTorch gives their
    memory to nothing but later work of the same stream.
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
