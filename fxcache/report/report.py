"""``fxcache.report``: the captures, cuts, cached bytes and decisions of an optimised module."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from torch import Tensor, nn

from fxcache.analysis.hoisting import HoistLevel
from fxcache.opaque import described
from fxcache.report.records import CaptureReport, RunReport, TotalsReport, VariantReport
from fxcache.report.saved import write_json
from fxcache.report.text import as_text
from fxcache.rewrite.factory import VariantKey
from fxcache.rewrite.variants import NOTHING, Variants
from fxcache.runtime.engine import Engine
from fxcache.runtime.features.guidance import GuidanceSlot
from fxcache.runtime.features.prologue import Prologues
from fxcache.runtime.record import Attributions, Run


@dataclass(frozen=True)
class Report:
    """The captures, cuts, cached bytes and decisions of a module. Print it, or use ``to_dict``.

    Attributes:
        model: The name of the model's class.
        policy: The policy's name and options.
        captures: One entry for each capture, with its cut and its variants.
        runs: The last runs, each with its refreshes, their reasons, and median times in
            milliseconds.
        totals: How many calls there were and how many refreshed, over all runs; the time of
            captures and compilations.
        attributions: How many calls there were, and how it was found which run each belongs to.
        cached_bytes: Bytes of the cached values, of all trajectories.
        hoisted_bytes: Bytes of the values that were computed before the steps.
        offloaded_bytes: Bytes of the weights that are on the CPU now.
        notices: What was noted, or warned of, since the last call of ``optimize``.
    """

    model: str
    policy: dict[str, Any]
    captures: list[CaptureReport]
    runs: list[RunReport]
    totals: TotalsReport
    attributions: Attributions
    cached_bytes: int
    hoisted_bytes: int
    offloaded_bytes: int
    notices: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Describe the report as JSON can hold it, by the names of the attributes."""
        return asdict(self)

    def save(self, file: str | Path) -> None:
        """Write the report as JSON; ``fxcache report FILE`` prints it.

        Raises:
            ModelFileError: The file cannot be written.
        """
        write_json(self.to_dict(), file)

    def __str__(self) -> str:
        return as_text(self.to_dict())


def report_of(module: nn.Module, engine: Engine) -> Report:
    """Return the report of an optimised module."""
    captured, requested = list(engine.captures.values()), engine.settings.hoist
    return Report(
        model=type(module).__name__,
        policy=engine.settings.policy.to_dict(),
        captures=[
            capture_report(v, hoist_level(v) if engine.runs else requested) for v in captured
        ],
        runs=[run_report(r, captured) for r in list(engine.runs)],
        totals=totals_report(engine, captured),
        attributions=replace(engine.store.counts),
        cached_bytes=engine.store.nbytes + engine.store.slot_bytes(GuidanceSlot),
        hoisted_bytes=engine.store.slot_bytes(Prologues),
        offloaded_bytes=engine.graphs.offload.nbytes,
        notices=engine.notices.given,
    )


def totals_report(engine: Engine, captured: Sequence[Variants]) -> TotalsReport:
    """Report the counts over all runs of an engine."""
    totals = engine.totals
    capture_ms = sum(variants.capture_ms for variants in captured)
    return TotalsReport(totals.calls, totals.refreshes, capture_ms, totals.compile_ms)


def hoist_level(variants: Variants) -> HoistLevel:
    """Return the most that was hoisted out of a step so far."""
    return max(key.hoisted for key in variants.made)


def capture_report(variants: Variants, level: HoistLevel) -> CaptureReport:
    """Report one capture.

    Args:
        variants: The capture's graphs.
        level: The level of its hoisted values, or the requested level if no step has run.
    """
    read = {
        kind: nbytes(variants.weights_read(reused, level))
        for kind, reused in (("refresh", NOTHING), ("reuse", variants.all))
    }
    whole = nbytes(variants.weights_read(NOTHING, HoistLevel.NOTHING))
    return CaptureReport(
        inputs=variants.inputs,
        nodes=len(variants.program.graph.nodes),
        full_nodes=nodes(variants, NOTHING),
        cached_skip_nodes=nodes(variants, variants.all),
        groups=len(variants.plan.groups),
        graphs=len(variants.modules),
        signal=observed(variants),
        cut=variants.plan.cut.to_dict(),
        reason=variants.plan.reason,
        specialized_on=sorted(variants.program.specialized),
        weight_bytes=read,
        hoisted_weight_bytes=whole - read["refresh"],
        opaque=described(variants.program.opaque),
        variants=[variant_report(variants, key) for key in list(variants.made)],
        capture_ms=variants.capture_ms,
    )


def variant_report(variants: Variants, key: VariantKey) -> VariantReport:
    """Report one variant: its key and its graph."""
    return VariantReport(
        name=variants.display_name(key),
        reused=sorted(key.reused),
        continued=key.continued,
        hoisted=key.hoisted.name.lower(),
        in_place=key.in_place,
        nodes=len(variants.made[key].module.graph.nodes),
        flops=variants.made[key].flops,
        kernels=[asdict(fusion) for fusion in variants.fusions[key]],
    )


def nbytes(tensors: list[Tensor]) -> int:
    """Bytes of all tensors together."""
    return sum(tensor.nbytes for tensor in tensors)


def nodes(variants: Variants, reused: frozenset[str]) -> int:
    """Count the nodes of the variant that reuses these cache points, its prefix included."""
    before = len(variants.prefix().module.graph.nodes) if variants.continued else 0
    return before + len(variants.variant(reused, variants.continued).module.graph.nodes)


def observed(variants: Variants) -> str | None:
    """Name the signal that the policy observes, and whether it is known before the run."""
    signal = variants.plan.signal
    if signal is None:
        return None
    return signal.kind.value + (" (before the run)" if signal.of_timestep_alone else "")


def run_report(run: Run, captured: Sequence[Variants] = ()) -> RunReport:
    """Report one run; ``captured`` holds the captures of the report."""
    decisions = [step.decision for step in run.steps]
    refresh_ms = typical(run.times_ms(refresh=True))
    reuse_ms = typical(run.times_ms(refresh=False))
    return RunReport(
        started=run.started,
        steps=len(decisions),
        refreshes=run.refreshes,
        reasons=counted([d.reason for d in decisions if d.refresh]),
        timestep_waits=run.waits,
        signal_waits=run.signal_waits,
        guidance_waits=run.guidance_waits,
        halved=[i for i, step in enumerate(run.steps) if step.half],
        tabulated=[i for i, step in enumerate(run.steps) if step.level is HoistLevel.PER_STEP],
        schedule=run.schedule,
        refresh_ms=refresh_ms,
        reuse_ms=reuse_ms,
        speedup=measured_speedup(run),
        ideal_speedup=run.ideal_speedup,
        captures=captures_of(run, captured),
        compile_ms=sum(step.stopwatch.compile_ms for step in run.steps),
    )


def captures_of(run: Run, captured: Sequence[Variants]) -> list[int]:
    """Return the index of each capture that the run used; -1 for one that is not listed."""
    indices = {id(variants.program): index for index, variants in enumerate(captured)}
    return sorted({indices.get(id(step.program()), -1) for step in run.steps})


def measured_speedup(run: Run) -> float | None:
    """``RunReport.speedup``; None unless there are refreshes and other steps."""
    kinds = Counter((step.decision.refresh, step.half) for step in run.steps)
    typical_ms = {kind: typical(run.times_ms(*kind)) for kind in kinds}
    full_ms = typical_ms.get((True, False))
    if len(kinds) < 2 or full_ms is None:
        return None
    spent_ms = sum(count * (typical_ms[kind] or 0) for kind, count in kinds.items())
    return len(run.steps) * full_ms / spent_ms


def typical(times_ms: list[float]) -> float | None:
    """Return the median, so that one step that the machine interrupted does not count."""
    return median(times_ms) if times_ms else None


def counted(reasons: list[str]) -> dict[str, int]:
    """Count each reason, in the order of first use."""
    return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
