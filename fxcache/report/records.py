"""The records in a report: variants, captures and runs. FLOPs count two per multiply-add."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class VariantReport:
    """One variant of a captured model.

    Attributes:
        name: The name for display, such as ``full`` or ``cached_skip``.
        reused: The groups of cache points that it reuses.
        continued: Whether it continues from the prefix, which computes the policy's signal.
        hoisted: The values that are computed before the steps: ``"nothing"``, ``"per_run"`` or
            ``"per_step"``.
        in_place: Whether it writes values to the cache itself, as compiled variants do.
        nodes: The number of nodes of the graph.
        flops: FLOPs of its step, two per multiply-add, including the prefix.
        kernels: The places where a Triton kernel could run, and the reason if none runs.
    """

    name: str
    reused: list[str]
    continued: bool
    hoisted: str
    in_place: bool
    nodes: int
    flops: int
    kernels: list[dict[str, str]]


@dataclass(frozen=True)
class CaptureReport:
    """One capture and its cut.

    Attributes:
        inputs: The shapes and dtypes of the captured call.
        nodes: How many nodes the captured graph has.
        full_nodes: How many nodes the full variant has.
        cached_skip_nodes: How many nodes the variant has that reuses everything.
        cut: The cut, as ``Cut.to_dict`` describes it.
        reason: Why this cut was chosen.
        groups: The number of groups of cache points that are refreshed separately.
        graphs: How many graphs were made so far.
        signal: The signal that the policy observes. None if it observes none.
        specialized_on: The inputs whose values the model read. Another value needs another capture.
        weight_bytes: Bytes of the weights that a ``"refresh"`` and a ``"reuse"`` step read.
        hoisted_weight_bytes: Bytes of the weights that no step reads, because their results are
            hoisted.
        opaque: The submodules that graphs call as they are, because torch.export cannot trace them:
            how many, where, and why.
        variants: The variants that were made so far.
        capture_ms: The time of the capture, in milliseconds.
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
    opaque: list[str]
    variants: list[VariantReport]
    capture_ms: float


@dataclass(frozen=True)
class RunReport:
    """One run: its refreshes and their reasons, the times of steps, and the speed-up.

    Attributes:
        started: Why the run began.
        steps: How many steps it made so far.
        refreshes: The steps that refreshed, from 0.
        reasons: How many refreshes had each reason.
        timestep_waits: In how many calls the timestep was read from a device.
        signal_waits: In how many calls the policy's signal was read from a device.
        guidance_waits: In how many calls the halves of the batch were compared on a device.
        halved: The steps that computed one half of the guidance alone.
        tabulated: The steps that took the values of their timestep from a table.
        schedule: For each group of cache points, the steps that computed it.
        refresh_ms: The median time of a refresh, in milliseconds, from the call of the model to its
            return. None if there was none.
        reuse_ms: The same for a reuse step. None if there was none.
        speedup: The time of the run if every step were a refresh, divided by the actual time. None
            unless there are refreshes and other steps.
        ideal_speedup: FLOPs without caching divided by FLOPs spent.
        captures: The captures that the run used, as indices of the report's ``captures``; -1 for
            one that was dropped since.
        compile_ms: The time of the run in which torch.compile compiled, in milliseconds.
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
    captures: list[int]
    compile_ms: float


@dataclass(frozen=True)
class TotalsReport:
    """Counts since the last call of ``optimize``, over all runs.

    Attributes:
        calls: The number of calls.
        refreshes: How many of them refreshed.
        capture_ms: The time of all captures in the report, in milliseconds.
        compile_ms: The time of all calls in which torch.compile compiled, in milliseconds.
    """

    calls: int
    refreshes: int
    capture_ms: float
    compile_ms: float
