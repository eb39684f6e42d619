"""Chooses the steps of a round, and groups them."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fxcache.call import Call
from fxcache.serving.request import Pending


def held_back(steps: Sequence[Pending], most: int) -> list[Pending]:
    """Return the first steps of requests that wait for a later round.

    They wait until a step of another request refreshes, for at most ``most`` rounds. All first
    steps refresh: a request that begins together with a refresh shares calls from then on.
    """
    others = [step for step in steps if not step.starts]
    if not most or not others or any(map(refreshes, others)):
        return []
    held = [step for step in steps if step.starts and step.rounds < most]
    for step in held:
        step.rounds += 1
        step.arrived = time.monotonic()
    return held


def refreshes(step: Pending) -> bool:
    """Return whether the policy refreshes at this step, as far as it knows without its signal."""
    trajectory = step.trajectory
    try:
        return trajectory.policy.decide(trajectory.step(trajectory.changes)).refresh
    except Exception:  # the step raises it when it runs
        return False


def kinds(steps: Sequence[Pending], alike: Callable[[Call, Call], bool]) -> list[list[Pending]]:
    """Group steps whose calls are alike, in the order of their first steps."""
    found: list[list[Pending]] = []
    for step in steps:
        for group in found:
            if alike(group[0].call, step.call):
                group.append(step)
                break
        else:
            found.append([step])
    return found


def finish_other_stream(tensor: Tensor) -> Any:
    """Wait for the caller's CUDA stream, unless it is the default one, and return it.

    Rounds run on the default stream, which does not wait for others by itself.
    """
    if not tensor.is_cuda:
        return None
    stream = torch.cuda.current_stream(tensor.device)
    if stream == torch.cuda.default_stream(tensor.device):
        return None
    stream.synchronize()
    return stream


def share_with_stream(values: Sequence[Any], stream: Any) -> None:
    """Wait until ``values`` are computed, and keep their memory while ``stream`` uses them."""
    torch.cuda.current_stream(stream.device).synchronize()
    for value in values:
        if isinstance(value, Tensor):
            value.record_stream(stream)
