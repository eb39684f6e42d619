"""Evaluates claims about the policies from the measured rows."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from bench.quality.results import Row
from bench.quality.settings import FEWER, TUNED, UNCACHED
from fxcache.report.pareto import Point

LARGE = 3.0  # the least speed-up of large intervals
SPEEDUPS = (2.0, 3.0)  # speed-ups at which the tuned plan is compared with all others
DEFAULT = "ProtectedEnds"
UNCALIBRATED = (  # curves of policies that need no measurements of the model
    FEWER,
    "Uniform",
    "Uniform, guidance",
    "NonUniform",
    *(f"Taylor, order {order}" for order in range(3)),
    "FasterCache",
    "FasterCache, attention",
)
MARGIN_DB = 3.0  # the PSNR by which the tuned plan must be better than DeepCache
NEAR = 0.01  # the relative difference up to which speed-ups count as equal


class Claim(NamedTuple):
    """A claim, its numbers, and whether it holds; None if nothing was measured."""

    what: str
    numbers: str
    holds: bool | None


def claims(rows: Sequence[Row]) -> list[Claim]:
    curves = curves_of(rows)
    hand_set = [name for name in curves if name != TUNED]
    return [
        claim_closer(curves, DEFAULT, FEWER),
        claim_closer(curves, DEFAULT, "Uniform"),
        claim_best(curves, DEFAULT, UNCALIBRATED, SPEEDUPS[0]),
        claim_closer(curves, "Uniform", FEWER),
        claim_closer(curves, "NonUniform", "Uniform", least=LARGE),
        claim_closer(curves, "BlockCaching", FEWER),
        claim_closer(curves, "BlockCaching, trained", "BlockCaching, the same untrained"),
        claim_closer(curves, "TeaCache", "Uniform"),
        claim_closer(curves, "Taylor, order 1", "Taylor, order 0"),
        claim_closer(curves, "Taylor, order 2", "Taylor, order 0"),
        claim_closer(curves, "Uniform, error-corrected", "Uniform"),
        claim_closer(curves, "Uniform, guidance", "Uniform"),
        claim_closer(curves, "FasterCache", "Uniform"),
        claim_closer(curves, TUNED, "Uniform", by_db=MARGIN_DB),
        *(claim_best(curves, TUNED, hand_set, speedup) for speedup in SPEEDUPS),
    ]


def curves_of(rows: Sequence[Row]) -> dict[str, list[Point]]:
    """Return each policy's points, sorted by speed-up, without the uncached run."""
    curves: dict[str, list[Point]] = {}
    for row in rows:
        if row["curve"] != UNCACHED:
            point = Point(row["ideal_speedup"], row["psnr_db"])
            curves.setdefault(row["curve"], []).append(point)
    return {name: sorted(points) for name, points in curves.items()}


def claim_closer(
    curves: dict[str, list[Point]], one: str, other: str, least: float = 1.0, by_db: float = 0.0
) -> Claim:
    """Claim that ``one`` has a higher PSNR than ``other`` at each speed-up from ``least`` on."""
    compared = [
        (point, psnr_db)
        for point in curves.get(one, [])
        if point.speedup >= least
        and (psnr_db := interpolated(curves.get(other, []), point.speedup)) is not None
    ]
    where = f" from {least:g}× on" if least > 1 else ""
    margin = f" by {by_db:g} dB" if by_db else ""
    numbers = [f"{mine:.1f} against {its:.1f} at {x:.2f}×" for (x, mine), its in compared]
    return Claim(
        f"{one} is closer than {other}{margin} at equal FLOPs{where}",
        "; ".join(numbers) or "no speed-ups in common",
        all(mine > its + by_db for (_, mine), its in compared) if compared else None,
    )


def claim_best(
    curves: dict[str, list[Point]], one: str, others: Sequence[str], speedup: float
) -> Claim:
    """Claim that ``one`` has a higher PSNR than all ``others`` at its point nearest ``speedup``."""
    what = f"{one} is the closest at {speedup:g}×"
    if one not in curves:
        return Claim(what, "not measured", None)
    x, mine = min(curves[one], key=lambda point: abs(point.speedup - speedup))
    found = {name: interpolated(curves.get(name, []), x) for name in others}
    reached = {name: psnr_db for name, psnr_db in found.items() if psnr_db is not None}
    ordered = sorted(reached, key=lambda name: -reached[name])
    numbers = [f"{one} {mine:.1f} at {x:.2f}×", *(f"{n} {reached[n]:.1f}" for n in ordered)]
    if missing := [name for name in others if name not in reached]:
        numbers.append("not so fast, or faster: " + ", ".join(missing))
    return Claim(what, "; ".join(numbers), mine > max(reached.values()) if reached else None)


def interpolated(points: Sequence[Point], speedup: float) -> float | None:
    """Interpolate the PSNR linearly between ``points``; None outside."""
    for point in points:
        if abs(point.speedup / speedup - 1) <= NEAR:
            return point.psnr_db
    for before, after in pairwise(points):
        if before.speedup <= speedup <= after.speedup:
            share = (speedup - before.speedup) / (after.speedup - before.speedup)
            return before.psnr_db + share * (after.psnr_db - before.psnr_db)
    return None
