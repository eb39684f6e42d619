"""Who wins: the best peer and the best of fxcache, by each measure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from bench.peers.tables import (
    SPEEDUPS,
    Row,
    Rows,
    agreement,
    curves_of,
    kibibytes,
    table,
    without_errors,
)
from bench.peers.timing import PLAIN
from bench.quality.claims import interpolated

FEWER = "fewer steps"
NOISE = 0.03  # the share by which times may differ by chance


class Best(NamedTuple):
    """The best of one side: the contender and its value, of which more is better."""

    name: str
    value: float


Measure = Callable[[Row], float]


def winners_table(subjects: Mapping[str, Mapping[str, Any]]) -> str:
    return table([line for name, parts in subjects.items() for line in lines_of(name, parts)])


def lines_of(subject: str, parts: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield a line for each measure of a subject."""
    rows = comparable(parts["eager"])
    yield line(subject, "speed-up, eager", rows, speed, "{:.2f}×")
    yield line(subject, "fewest cached bytes", rows, little, "")
    yield line(subject, "fewest waits", rows, unwaited, "waits")
    compiled = without_errors(parts.get("compiled", {}))
    if len(compiled) > 1:
        cached = {n: row for n, row in compiled.items() if n != PLAIN}
        yield line(subject, "speed-up, Inductor", cached, speed, "{:.2f}×")
    for at in SPEEDUPS if "quality" in parts else ():
        found = {n: interpolated(c, at) for n, c in curves_of(parts["quality"]).items()}
        known = {n: {"psnr": v} for n, v in found.items() if v is not None and n != FEWER}
        yield line(subject, f"PSNR at {at:g}×", known, psnr, "{:.1f} dB")


def comparable(rows: Rows) -> dict[str, Row]:
    """Return the contenders that cache, and compute as many steps as were asked for."""
    asked = len(rows[FEWER]["refreshed"])
    return {
        name: row
        for name, row in without_errors(rows).items()
        if name not in (PLAIN, FEWER) and len(row["refreshed"]) == asked
    }


def speed(row: Row) -> float:
    return float(row["speedup"])


def little(row: Row) -> float:
    return -float(row["cached_bytes"])


def unwaited(row: Row) -> float:
    return -float(row["waits"])


def psnr(row: Row) -> float:
    return float(row["psnr"])


def line(subject: str, what: str, rows: Rows, measure: Measure, form: str) -> dict[str, str]:
    ours = best({n: row for n, row in rows.items() if n.startswith("fxcache")}, measure)
    peers = best({n: row for n, row in rows.items() if not n.startswith("fxcache")}, measure)
    return {
        "model": subject,
        "": what,
        "the best peer": told(peers, form),
        "the best of fxcache": told(ours, form),
        "wins": verdict(peers, ours),
    }


def best(rows: Rows, measure: Measure) -> Best | None:
    found = [Best(name, measure(row)) for name, row in rows.items()]
    return max(found, key=lambda one: one.value, default=None)


def told(one: Best | None, form: str) -> str:
    if one is None:
        return "–"
    if form == "waits":
        return f"{one.name}: {-one.value:.0f}"
    return f"{one.name}: {form.format(one.value) if form else kibibytes(int(-one.value))}"


def verdict(peer: Best | None, ours: Best | None, margin: float = NOISE) -> str:
    """Return the winner. Values within the noise have none."""
    if peer is None or ours is None:
        return "–"
    if abs(peer.value - ours.value) <= margin * abs(ours.value):
        return "neither"
    return "fxcache" if ours.value > peer.value else f"**{peer.name}**"


def same_rule_table(subjects: Mapping[str, Mapping[str, Any]]) -> str:
    """Compare each peer with fxcache by the same rule."""
    lines = []
    for subject, parts in subjects.items():
        rows = without_errors(parts["eager"])
        for name, row in rows.items():
            found = row["agreement"]
            if found:
                twin = Best(found["twin"], speed(rows[found["twin"]]))
                peer = Best(name, speed(row))
                lines.append(
                    {
                        "model": subject,
                        "peer": told(peer, "{:.2f}×"),
                        "fxcache by the same rule": told(twin, "{:.2f}×"),
                        "same steps": "yes" if found["same_steps"] else "no",
                        "final latents": agreement(found),
                        "faster": verdict(peer, twin),
                    }
                )
    return table(lines)
