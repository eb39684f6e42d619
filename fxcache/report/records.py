"""What a report holds of variants, captures and runs. FLOPs count two per multiply-add."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class VariantReport:
    """One variant.

    ``name``: what people call it. ``reused``, ``continued`` and ``hoisted`` identify it: the groups
    of cache points that it reuses, whether it continues from the prefix, and which values it takes
    that were computed before the steps. ``kernels``: the places where one could run, and why not
    where it does not. ``flops``: of its step, the prefix included.
    """

    name: str
    reused: list[str]
    continued: bool
    hoisted: str
    nodes: int
    flops: int
    kernels: list[dict[str, str]]


@dataclass(frozen=True)
class CaptureReport:
    """One captured signature and its cut. FLOPs are of one call, two per multiply-add.

    ``groups``: cut points that are refreshed by themselves; ``graphs``: made so far. ``signal``:
    what the policy observes. ``specialized_on``: the inputs whose values the model read: another
    value, another capture. ``weight_bytes``: of the weights that a refresh and a reuse read, what
    was hoisted left out; ``hoisted_weight_bytes``: of those that no such step reads.
    ``variants``: made so far.
    """

    inputs: str
    nodes: int
    full_nodes: int
    cached_skip_nodes: int
    cut: dict[str, Any]
    reason: str
    groups: int
    graphs: int
    signal: str | None
    specialized_on: list[str]
    weight_bytes: dict[str, int]
    hoisted_weight_bytes: int
    variants: list[VariantReport]


@dataclass(frozen=True)
class RunReport:
    """One run: which steps refreshed and why, median times, what that saved.

    ``timestep_waits``, ``signal_waits``, ``guidance_waits``: calls whose timestep, policy's signal
    or halves of the batch were read from another device, which waits for it. ``halved``: the steps
    that computed one half of the guidance alone; ``tabulated``: those whose values of the timestep
    came from a table.

    ``schedule``: for each cache point that is refreshed by itself, the steps that computed it.

    ``speedup``: time of the run had every step taken as long as its refreshes, over the time it
    took. ``ideal_speedup``: the same from FLOPs.
    """

    started: str
    steps: int
    refreshes: list[int]
    reasons: dict[str, int]
    timestep_waits: int
    signal_waits: int
    guidance_waits: int
    halved: list[int]
    tabulated: list[int]
    schedule: dict[str, list[int]]
    refresh_ms: float | None
    reuse_ms: float | None
    speedup: float | None
    ideal_speedup: float | None
