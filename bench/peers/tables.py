"""The tables of ``docs/peers.md``."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from bench.peers.timing import PLAIN
from bench.quality.claims import interpolated
from fxcache.report.pareto import Point

Row = Mapping[str, Any]
Rows = Mapping[str, Row]
PARTS = ("eager", "graphs", "compiled", "quality")
SPEEDUPS = (2.0, 2.5, 3.0)


def table(lines: Sequence[Mapping[str, str]]) -> str:
    return tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True)


def without_errors(rows: Rows) -> dict[str, Row]:
    return {name: row for name, row in rows.items() if "error" not in row}


def eager_table(rows: Rows) -> str:
    return table([eager_line(name, row) for name, row in without_errors(rows).items()])


def eager_line(name: str, row: Row) -> dict[str, str]:
    return {
        "": name,
        "setting": row["setting"] or "–",
        "computed": f"{len(row['refreshed'])} of {row['steps']}",
        "speed-up": speedup(row),
        "ideal": f"{row['ideal_speedup']:.2f}×",
        "run, ms": f"{row['run_ms']:.0f}",
        "refresh": milliseconds(row["refresh_ms"]),
        "reuse": milliseconds(row["reuse_ms"]),
        "waits": str(row["waits"]),
        "cached": kibibytes(row["cached_bytes"]),
        "peak": kibibytes(row["peak_bytes"]),
    }


def speedup(row: Row) -> str:
    return f"{row['speedup']:.2f}× ({row['speedup_low']:.2f}–{row['speedup_high']:.2f})"


def milliseconds(found: float | None) -> str:
    return "–" if found is None else f"{found:.1f}"


def kibibytes(count: int) -> str:
    return f"{count / 1024:,.0f} KiB"


def agreement(found: Row) -> str:
    """Return in words how the latent of a contender agrees with that of its twin."""
    return "equal, bit for bit" if found["equal"] else f"differ by {found['difference']:.1e}"


def compiled_table(parts: Mapping[str, Rows]) -> str:
    graphs, times = parts.get("graphs", {}), parts.get("compiled", {})
    names = dict.fromkeys([*times, *graphs])
    plain = times.get(PLAIN, {})
    scaled = {name: scaled_to(parts["eager"][PLAIN]["run_ms"], row) for name, row in times.items()}
    return table([compiled_line(name, graphs.get(name), scaled.get(name), plain) for name in names])


def scaled_to(plain_ms: float, row: Row) -> Row:
    """Return times as if the uncompiled runs beside them had taken ``plain_ms``."""
    if "error" in row:
        return row
    factor = plain_ms / (row["run_ms"] * row["speedup"])
    kinds = ("run_ms", "refresh_ms", "reuse_ms")
    return {**row} | {kind: row[kind] and row[kind] * factor for kind in kinds}


def compiled_line(name: str, graphs: Row | None, times: Row | None, plain: Row) -> dict[str, str]:
    counts = {
        "graphs": "graphs",
        "a refresh": "graphs_refresh",
        "a reuse": "graphs_reuse",
        "breaks": "breaks",
        "recompilations": "recompilations",
    }
    line = {"": name} | {title: number(graphs, key) for title, key in counts.items()}
    timed = times is not None and "error" not in times
    over_plain = timed and "speedup" in plain
    return line | {
        "refresh, ms": milliseconds(times["refresh_ms"]) if times and timed else "–",
        "reuse, ms": milliseconds(times["reuse_ms"]) if times and timed else "–",
        "speed-up over uncompiled": speedup(times) if times and timed else failed(times),
        "over compiled": f"{times['speedup'] / plain['speedup']:.2f}×"
        if times and over_plain
        else "–",
    }


def number(row: Row | None, key: str) -> str:
    found = None if row is None else row.get(key)
    return "–" if found is None else f"{found:g}"


def failed(row: Row | None) -> str:
    return "not measured" if row is None else "failed"


def curves_of(rows: Mapping[str, Sequence[Row]]) -> dict[str, list[Point]]:
    """Return the sorted points of each contender that were measured."""
    return {
        name: sorted(
            Point(row["ideal_speedup"], row["psnr_db"]) for row in found if "error" not in row
        )
        for name, found in rows.items()
        if any("error" not in row for row in found)
    }


def quality_table(rows: Mapping[str, Sequence[Row]]) -> str:
    curves = curves_of(rows)
    found = {
        at: {name: interpolated(points, at) for name, points in curves.items()} for at in SPEEDUPS
    }
    best = {
        at: max((v for v in column.values() if v is not None), default=None)
        for at, column in found.items()
    }
    lines = [
        {"": name} | {f"{at:g}×": decibels(found[at][name], best[at]) for at in SPEEDUPS}
        for name in curves
    ]
    return table(lines)


def decibels(found: float | None, best: float | None) -> str:
    if found is None:
        return "–"
    return f"**{found:.1f}**" if found == best else f"{found:.1f}"


def errors_table(subjects: Mapping[str, Mapping[str, Any]]) -> str:
    """Return each error of each part, once."""
    lines = []
    for subject, parts in subjects.items():
        for part in PARTS:
            for name, found in parts.get(part, {}).items():
                told = [found] if isinstance(found, Mapping) else found
                for error in dict.fromkeys(row["error"] for row in told if "error" in row):
                    where = f"{subject}, {part}"
                    lines.append({"model": where, "contender": name, "error": code(error)})
    return table(lines) if lines else "Nothing failed."


def code(text: str) -> str:
    """Return ``text`` as code in a cell of a table."""
    return "`" + text.replace("`", "'").replace("|", "/") + "`"
