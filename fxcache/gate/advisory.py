"""Milliseconds of a step on one device. They never fail a gate."""

import platform
from collections.abc import Sequence

import torch

from fxcache.gate.timing import ORIGINAL, REFRESH, REUSE, Round

PERCENTILES = (50, 90, 99)
KINDS = (ORIGINAL, REFRESH, REUSE)


def milliseconds(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """Return percentiles of the milliseconds of each kind of step."""
    found = {}
    for kind in KINDS:
        times = [call.wall_s for r in rounds for call in r.calls if call.kind == kind]
        if times:
            found[kind] = {f"p{p}_ms": round(1000 * percentile(times, p), 3) for p in PERCENTILES}
    return found


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest of ``values`` that at least ``percent`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def device_name(device: torch.device) -> str:
    """Name the device: times of one device are compared with times of the same alone."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {platform.machine()}, one thread"
