"""How calls are attributed by latents alone: ``python -m bench.attributions --out FILE``.

Passes the latents of runs of the bundled model, for each solver and number of steps, to a store of
trajectories as in an optimised module. There is no prompt, no session and no key, so that only the
latents distinguish requests. Each call is counted as right, refreshed or wrong.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any
from weakref import WeakKeyDictionary

import torch
from tabulate import tabulate
from torch import Tensor, nn

from bench.environment import environment
from bench.trajectories import (
    Request,
    Trajectories,
    add_arguments,
    load,
    scheduler_of,
    solvers_and_steps,
    trajectories,
)
from fxcache.runtime.trajectory.caller import Caller
from fxcache.runtime.trajectory.scope import Scope
from fxcache.runtime.trajectory.store import TrajectoryStore
from fxcache.runtime.trajectory.trajectory import Trajectory
from fxcache.signature import Signature

SAME_CAPTION = tuple(Request("red apple", seed) for seed in range(4))
CAPTIONS = ("penguin", "fire engine", "sunflower", "green apple")
OTHER_CAPTIONS = tuple(Request(caption, 10 + i) for i, caption in enumerate(CAPTIONS))
FROM_PICTURES = tuple(Request("red apple", 20 + i, 0.6) for i in range(4))
REQUESTS = SAME_CAPTION + OTHER_CAPTIONS + FROM_PICTURES
LIMIT = 32  # the number of trajectories to keep

Calls = Iterator[tuple[int, int]]  # the index of the request, and the step


class Model(nn.Module):
    """A model of which only the names of inputs are used."""

    def forward(self, sample: Tensor, timestep: Any) -> Tensor:
        """Unused."""
        raise NotImplementedError


@dataclass
class Counts:
    """Counts of how the calls of a loop were attributed.

    Attributes:
        calls: All calls except the first of each request.
        right: Calls that may reuse values of their own request.
        refreshed: Calls that refresh although they continue a run.
        wrong: Calls that may reuse values of another request, including first calls.
    """

    calls: int = 0
    right: int = 0
    refreshed: int = 0
    wrong: int = 0


def one_after_the_other(pair: Sequence[int], first: Sequence[int], calls: int) -> Calls:
    """Yield all calls of one request, then all calls of the other."""
    return ((i, step) for i in pair for step in range(first[i], calls))


def in_turns(pair: Sequence[int], first: Sequence[int], calls: int) -> Calls:
    """Yield one call of each request at each step."""
    return ((i, step) for step in range(calls) for i in pair if step >= first[i])


LOOPS: dict[str, tuple[tuple[Request, ...], Callable[..., Calls]]] = {
    "same caption, in turns": (SAME_CAPTION, in_turns),
    "same caption, one after the other": (SAME_CAPTION, one_after_the_other),
    "other captions, in turns": (OTHER_CAPTIONS, in_turns),
    "from one picture, one after the other": (FROM_PICTURES, one_after_the_other),
}


def replay(drawn: Trajectories, timesteps: Sequence[Any], order: Calls, counts: Counts) -> None:
    """Count how an empty store attributes the calls in this ``order``."""
    signature, store, scope = Signature(Model), TrajectoryStore(LIMIT), Scope()
    owners: WeakKeyDictionary[Trajectory, int] = WeakKeyDictionary()
    for request, step in order:
        call = signature.call((drawn.latents[step, request][None], timesteps[step]), {})
        found = store.locate(call, Caller(scope, call.key))
        found.end_call(complete=True)
        owner, begins = owners.get(found), step == drawn.first[request]
        counts.calls += not begins
        counts.wrong += not found.refresh and owner != request
        counts.right += not found.refresh and owner == request
        counts.refreshed += bool(found.refresh) and not begins
        owners[found] = request


def measure(drawn: Trajectories, timesteps: Sequence[Any]) -> dict[str, Counts]:
    """Return the counts of each loop, over all ordered pairs of its requests."""
    found = {}
    for name, (requests, order) in LOOPS.items():
        counts = found[name] = Counts()
        for pair in permutations([REQUESTS.index(request) for request in requests], 2):
            replay(drawn, timesteps, order(pair, drawn.first, len(timesteps)), counts)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    pipeline, rows, results = load(), list[list[Any]](), list[dict[str, Any]]()
    for solver, steps in solvers_and_steps(arguments):
        started = time.perf_counter()
        drawn = trajectories(pipeline, solver, steps, REQUESTS)
        timesteps = scheduler_of(pipeline, solver, steps).timesteps.tolist()
        for name, counts in measure(drawn, timesteps).items():
            results.append({"solver": solver, "steps": steps, "loop": name, **asdict(counts)})
            rows.append(list(results[-1].values()))
        print(f"{solver}, {steps} steps: {time.perf_counter() - started:.0f} s", flush=True)
        text = json.dumps(environment("cpu") | {"results": results}, indent=1)
        arguments.out.write_text(text + "\n", encoding="utf-8")
    print(tabulate(rows, list(results[0])))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
