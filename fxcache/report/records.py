"""The records in a report: variants, captures and runs. FLOPs count two per multiply-add."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class VariantReport:
    """One variant. ``reused``, ``continued`` and ``hoisted`` identify it.

    Attributes:
        name: The display name, such as ``full`` or ``cached_skip``.
        reused: The groups of cache points that the variant reuses.
        continued: Whether the variant continues from the results of the prefix.
        hoisted: The level of hoisting: which values the variant takes as inputs.
        nodes: The number of nodes in its graph.
        flops: FLOPs of a step with this variant, including the prefix.
        kernels: The places at which a kernel can run, and the reason if it does not.
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
    """One capture and its cut. FLOPs are those of one call.

    Attributes:
        inputs: A description of the captured call.
        nodes: The number of nodes in the captured graph.
        full_nodes: The number of nodes in the full variant, including the prefix.
        cached_skip_nodes: The number of nodes in the cached-skip variant, including the prefix.
        cut: The cut, as in ``Cut.to_dict``.
        reason: Why this cut was chosen.
        groups: The number of groups of cache points. Each is refreshed or reused on its own.
        graphs: The number of graphs so far.
        signal: The signal that the policy observes; None if it observes none.
        specialized_on: The inputs whose values the model reads. Another value needs another
            capture.
        weight_bytes: Bytes of the weights that a step reads, by the kind of step (``refresh``,
            ``reuse``), without weights that only hoisted values need.
        hoisted_weight_bytes: Bytes of the weights that only hoisted values need.
        variants: The variants so far.
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
    """One run.

    Attributes:
        started: Why the run began.
        steps: The number of steps.
        refreshes: The indices of the refresh steps.
        reasons: The number of refreshes for each reason.
        timestep_waits: The number of calls that waited for the device to read the timestep.
        signal_waits: The number of calls that waited for the device to read the policy's signal.
        guidance_waits: The number of calls that waited for the device to compare the halves of a
            guided batch.
        halved: The steps that computed only one half of the guided batch.
        tabulated: The steps whose timestep-dependent values came from a table.
        schedule: The steps that computed each group of cache points.
        refresh_ms: The median time of a refresh step in milliseconds; None if not measured.
        reuse_ms: The median time of a reuse step in milliseconds; None if not measured.
        speedup: The time of the run if every step took as long as a refresh, divided by its actual
            time; None if not measured.
        ideal_speedup: The same ratio, computed from FLOPs; None if unknown.
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
