"""Draws the schedules of policies over 50 steps."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from bench.gallery.drawing import CACHED, COMPUTED, INK, LEFT_OUT, Strip, draw_strips, legend
from bench.gallery.inputs import CHANGES, STEPS, bundled, layer_errors, magnitude_ratios
from fxcache.policies import (
    Explicit,
    FasterCache,
    FirstBlock,
    GuidanceCache,
    MagCache,
    NonUniform,
    Policy,
    ProtectedEnds,
    Scheduled,
    Since,
    SmoothCache,
    TaylorSeer,
    TeaCache,
    Uniform,
)
from fxcache.step import Decision, Step

KNOWN: Mapping[str, Policy] = {
    "ProtectedEnds(interval=3)": ProtectedEnds(interval=3),
    "Uniform(interval=3)": Uniform(interval=3),
    "Uniform(interval=5)": Uniform(interval=5),
    "Uniform(5, first=3, last=2)": Uniform(5, first=3, last=2),
    "NonUniform(5, center=15)": NonUniform(5, center=15),
    "Explicit((0, 4, 9, 20))": Explicit((0, 4, 9, 20)),
    "TaylorSeer(interval=4)": TaylorSeer(interval=4),
    "FasterCache(interval=2)": FasterCache(interval=2),
}
OBSERVED: Mapping[str, Policy] = {
    "TeaCache(0.15)": TeaCache(0.15, coefficients=(1.0, 0.0)),
    "FirstBlock(0.15)": FirstBlock(0.15),
    "FirstBlock(0.15, max_reuses=3)": FirstBlock(0.15, max_reuses=3),
    "MagCache(ratios, 0.06)": MagCache(magnitude_ratios(), 0.06),
}
SMOOTH = SmoothCache(0.2, errors={"attn1": layer_errors(1.0), "ff": layer_errors(1.6)})
# Two cuts of a U-Net: some steps compute the outer one, cut 0, from the cached inner one.
TWO_CUTS = Scheduled(
    names=("cut 0", "cut 3"),
    reused=tuple(
        () if s % 6 == 0 else ("cut 3",) if s % 3 == 0 else ("cut 0", "cut 3") for s in range(STEPS)
    ),
)
COLORS = {COMPUTED: "refresh", LEFT_OUT: "reuse"}


def decisions(policy: Policy) -> list[Decision]:
    """Return the decision at each step, if the signal changes by ``CHANGES``."""
    value = reference = 1.0
    changes: list[float] = []
    found: list[Decision] = []
    last = 0
    for index in range(STEPS):
        if index:
            value *= 1 + CHANGES[index]
            changes.append(abs(value - reference) / reference)
        found.append(policy.decide(Step(index, STEPS, last, tuple(changes))))
        if found[-1].refresh:
            last, reference = index, value
            changes.clear()
        if policy.observes and policy.observes.since is Since.STEP:
            reference = value
    return found


def strip(label: str, policy: Policy) -> Strip:
    """Return the row of a policy that refreshes all cache points together."""
    refreshes = [decision.refresh for decision in decisions(policy)]
    return Strip(label, refreshes, extrapolated=policy.default_forecast is not None)


def point_strips(policy: Policy) -> list[Strip]:
    """Return a row for each cache point of a calibrated policy."""
    found = decisions(policy)
    names = sorted(policy.points or ())
    return [Strip(n, [d.refresh or n in d.recompute for d in found]) for n in names]


def known_beforehand() -> Figure:
    """Draw policies whose schedule needs no data."""
    page = Figure(figsize=(9.5, 3.9), layout="constrained")
    axes = page.subplots()
    draw_strips(axes, [strip(label, policy) for label, policy in KNOWN.items()])
    axes.set_xlabel("step")
    legend(page, {**COLORS, CACHED: "reuse, extrapolated"})
    return page


def observed() -> Figure:
    """Draw policies that decide by a change: the change above, the schedules below."""
    page = Figure(figsize=(9.5, 5), layout="constrained")
    above, below = page.subplots(2, height_ratios=(1, 1.3), sharex=True)
    percent = [100 * change for change in CHANGES[1:]]
    above.plot([s + 0.5 for s in range(1, STEPS)], percent, color=INK, marker="o", markersize=3)
    above.set_ylabel("change from\nthe step before, %")
    above.set_ylim(0)
    above.grid(alpha=0.3)
    above.spines[["top", "right"]].set_visible(False)
    above.tick_params(labelbottom=False)
    draw_strips(below, [strip(label, policy) for label, policy in OBSERVED.items()])
    below.set_xlabel("step")
    legend(page, COLORS)
    return page


def calibrated() -> Figure:
    """Draw a panel for each policy that refreshes cache points separately."""
    panels = {
        "BlockCaching, calibrated on emoji-sd": bundled("emoji-sd-blocks-much"),
        "LearnedRouter, trained on emoji-dit": bundled("emoji-dit-router"),
        "SmoothCache(alpha=0.2), of made-up errors": SMOOTH,
        "Scheduled, as fxcache tune writes it: two cuts, written by hand here": TWO_CUTS,
    }
    rows = {title: point_strips(policy) for title, policy in panels.items()}
    ratios = [len(strips) + 1.6 for strips in rows.values()]
    page = Figure(figsize=(9.5, 1 + 0.27 * sum(ratios)), layout="constrained")
    every: Any = page.subplots(len(rows), height_ratios=ratios)
    for axes, (title, strips) in zip(every, rows.items(), strict=True):
        draw_strips(axes, strips)
        axes.set_title(title, loc="left", fontsize=11)
    every[-1].set_xlabel("step")
    legend(page, {COMPUTED: "computed", LEFT_OUT: "reused"})
    return page


def guided() -> Figure:
    """Draw which steps compute both halves of classifier-free guidance."""
    caches = {
        "GuidanceCache(interval=5)": GuidanceCache(interval=5),
        "GuidanceCache(interval=2, start=0.2)": GuidanceCache(interval=2, start=0.2),
    }
    strips = [
        Strip(label, [cache.computes_both(Step(s, STEPS)) for s in range(STEPS)], extrapolated=True)
        for label, cache in caches.items()
    ]
    page = Figure(figsize=(9.5, 1.9), layout="constrained")
    axes = page.subplots()
    draw_strips(axes, strips)
    axes.set_xlabel("step")
    rebuilt = "the unconditional half is rebuilt from the conditional one"
    legend(page, {COMPUTED: "both halves are computed", CACHED: rebuilt})
    return page
