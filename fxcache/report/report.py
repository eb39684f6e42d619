"""``fxcache.report``: what was captured, cut, cached and decided."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from tabulate import tabulate
from torch import Tensor, nn

from fxcache.rewrite.hoist import Level
from fxcache.rewrite.runner import NOTHING, Variants
from fxcache.runtime.engine import Engine
from fxcache.runtime.record import Run
from fxcache.runtime.trajectory.store import Attributions


@dataclass(frozen=True)
class CaptureReport:
    """One captured signature and its cut. FLOPs are of one call, two per multiply-add.

    ``groups``: cut points that are refreshed by themselves; ``graphs``: made so far. ``signal``:
    what the policy observes. ``specialized_on``: the inputs whose values the model read: another
    value, another capture. ``weight_bytes``: of the weights that a refresh and a reuse read, what
    was hoisted left out; ``hoisted_weight_bytes``: of those that no such step reads.
    ``kernels``: by name of the variant, the places where one could run, and why not if it does not.
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
    kernels: dict[str, list[dict[str, str]]]


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


@dataclass(frozen=True)
class Report:
    """All of it, printable; ``to_dict`` is JSON-ready."""

    model: str
    policy: dict[str, Any]
    captures: list[CaptureReport]
    runs: list[RunReport]
    attributions: Attributions  # of calls to trajectories
    cached_bytes: int
    hoisted_bytes: int
    offloaded_bytes: int  # of weights, on the CPU now

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return as_text(self.to_dict())


def report_of(module: nn.Module, engine: Engine) -> Report:
    """The report of an optimised module."""
    captured, asked = list(engine.captures.values()), engine.settings.hoist
    return Report(
        model=type(module).__name__,
        policy=engine.settings.policy.to_dict(),
        captures=[capture_report(v, given(v) if engine.runs else asked) for v in captured],
        runs=[run_report(r) for r in list(engine.runs)],
        attributions=replace(engine.store.counts),
        cached_bytes=engine.store.nbytes,
        hoisted_bytes=engine.store.hoisted_bytes,
        offloaded_bytes=engine.offload.nbytes,
    )


def given(variants: Variants) -> Level:
    """The most that steps were given so far."""
    return max(kind.level for kind in variants.made)


def capture_report(variants: Variants, level: Level) -> CaptureReport:
    """``level``: what its steps are given, or will be where none has run."""
    read = {
        kind: nbytes(variants.weights_read(reused, level))
        for kind, reused in (("refresh", NOTHING), ("reuse", variants.all))
    }
    whole = nbytes(variants.weights_read(NOTHING, Level.NOTHING))
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
        kernels={name: list(map(asdict, found)) for name, found in variants.fusions.items()},
    )


def nbytes(tensors: list[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def nodes(variants: Variants, reused: frozenset[str]) -> int:
    """How many nodes the variant has that reuses so much, its prefix included."""
    before = len(variants.prefix().module.graph.nodes) if variants.continued else 0
    return before + len(variants.variant(reused, variants.continued).module.graph.nodes)


def observed(variants: Variants) -> str | None:
    """What the policy observes, and when it is known."""
    signal = variants.plan.signal
    if signal is None:
        return None
    return signal.kind.value + (" (before the run)" if signal.of_timestep_alone else "")


def run_report(run: Run) -> RunReport:
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
        tabulated=[i for i, step in enumerate(run.steps) if step.level is Level.STEP],
        schedule=run.schedule,
        refresh_ms=refresh_ms,
        reuse_ms=reuse_ms,
        speedup=measured_speedup(run),
        ideal_speedup=run.ideal_speedup,
    )


def measured_speedup(run: Run) -> float | None:
    """See ``RunReport.speedup``; None unless there are refreshes and other steps."""
    kinds = Counter((step.decision.refresh, step.half) for step in run.steps)
    typical_ms = {kind: typical(run.times_ms(*kind)) for kind in kinds}
    full_ms = typical_ms.get((True, False))
    if len(kinds) < 2 or full_ms is None:
        return None
    spent_ms = sum(count * (typical_ms[kind] or 0) for kind, count in kinds.items())
    return len(run.steps) * full_ms / spent_ms


def typical(times_ms: list[float]) -> float | None:
    """The median: one step that the machine interrupted does not count."""
    return median(times_ms) if times_ms else None


def counted(reasons: list[str]) -> dict[str, int]:
    return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


def as_text(report: dict[str, Any]) -> str:
    """A report, or one read back from JSON, as tables."""
    options = ", ".join(f"{k}={v}" for k, v in report["policy"].items() if k != "policy")
    lines = [
        f"{report['model']}: {report['policy']['policy']}({options}), "
        f"{report['cached_bytes']:,} bytes cached"
    ]
    for capture in report["captures"]:
        lines += ["", f"captured {capture['inputs']}", cut_line(capture)]
    if report["runs"]:
        lines += ["", runs_table(report["runs"])]
    if told := attribution_lines(report["attributions"]):
        lines += ["", *told]
    return "\n".join(lines)


def attribution_lines(counts: dict[str, int]) -> list[str]:
    """What slowed calls down, or may do so, since it was unclear whose they were."""
    calls, lines = f"of {counts['calls']} calls", []
    if found := counts["by_latent"]:
        lines.append(
            f"{found} {calls} were attributed by comparing latents "
            f"({counts['device_waits']} waited for the device): fxcache.session(model) around the "
            "loop (with a key for each tile), or fxcache.optimize(pipe), makes that unnecessary"
        )
    if found := counts["ambiguous"]:
        lines.append(
            f"{found} {calls} refreshed since they may be another request's: give each request a "
            "fxcache.session(model, key=...)"
        )
    if found := counts["lone_starts"]:
        lines.append(
            f"{found} {calls} began a run though the last runs ended with their first call: open "
            "fxcache.session(model) around the loop"
        )
    if found := counts["evicted"]:
        lines.append(
            f"{found} trajectories were dropped before their end: raise "
            "CacheConfig(max_trajectories=...)"
        )
    return lines


def cut_line(capture: dict[str, Any]) -> str:
    cut = capture["cut"]
    read = ", ".join(capture["specialized_on"])
    values = f"; for these values of {read} only" if read else ""
    if hoisted := capture["hoisted_weight_bytes"]:
        values += f"; {hoisted:,} bytes of weights are read once a run instead of every step"
    return (
        f"cut at {cut['name']} ({capture['reason']}): a reuse step saves {cut['share_saved']:.1%} "
        f"of {cut['full_flops'] / 1e9:.2f} GFLOPs, caches {cut['cache_bytes']:,} bytes; "
        f"{capture['full_nodes']} nodes full, {capture['cached_skip_nodes']} reusing{values}"
    )


def runs_table(runs: list[dict[str, Any]]) -> str:
    rows = [
        {
            "run": index,
            "began with": run["started"],
            "steps": run["steps"],
            "refreshed": len(run["refreshes"]),
            "refresh ms": rounded(run["refresh_ms"]),
            "reuse ms": rounded(run["reuse_ms"]),
            "speed-up": rounded(run["speedup"]),
            "ideal": rounded(run["ideal_speedup"]),
            "halved": len(run["halved"]),
            "waits": sum(run[f"{what}_waits"] for what in ("timestep", "signal", "guidance")),
            "refreshed because": "; ".join(f"{k} ({v})" for k, v in run["reasons"].items()),
        }
        for index, run in enumerate(runs)
    ]
    return tabulate(rows, headers="keys")


def rounded(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
