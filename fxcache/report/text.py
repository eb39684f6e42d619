"""Formats a report as text."""

from typing import Any

from tabulate import tabulate

LONGEST_OPTION = 120  # characters

UNUSED = "–"  # in a cell; a column without any other is left out

# By columns of the table of runs; shown if one of the columns is.
LEGEND = {
    ("run",): "the calls of one session or of one call of the pipeline; if a step calls the model "
    "several times, for the halves of the guidance or for tiles, each of these has its own row.",
    ("capture",): "the captures that the run used, by their numbers above; dropped: a capture that "
    "is not kept any more, as after a change of the model.",
    ("began with",): "why the first step refreshed.",
    ("refreshed",): "the steps that ran the full graph.",
    ("halved",): "the steps that computed one half of the guidance.",
    ("refresh ms", "reuse ms"): "the median time of a step of this kind, from the call of the "
    "model to its return, with all that fxcache does.",
    ("compile s",): "the time in which torch.compile compiled during the run.",
    ("speed-up",): "the time of as many refreshes, divided by that of the steps, from these "
    "medians.",
    ("ideal",): "FLOPs without fxcache, divided by those of the steps.",
    ("waits",): "how often a step read a timestep, a signal or the guidance from the device.",
}


def as_text(report: dict[str, Any]) -> str:
    """Return the text of a report, which may come from JSON."""
    options = ", ".join(f"{k}={brief(v)}" for k, v in report["policy"].items() if k != "policy")
    lines = [
        f"{report['model']}: {report['policy']['policy']}({options}), "
        f"{report['cached_bytes']:,} bytes cached",
        summary(report),
    ]
    for index, capture in enumerate(report["captures"]):
        took = f" in {capture['capture_ms'] / 1000:.1f} s" if "capture_ms" in capture else ""
        lines += ["", f"capture {index}{took}: {capture['inputs']}", cut_line(capture)]
        lines += [f"not traced, called as they are: {called}" for called in capture["opaque"]]
    if report["runs"]:
        lines += ["", runs_table(report["runs"])]
    if advice := attribution_lines(report["attributions"]):
        lines += ["", *advice]
    if report["notices"]:
        lines += ["", *(f"note: {notice}" for notice in report["notices"])]
    return "\n".join(lines)


def brief(value: Any) -> str:
    """``value`` as text; "…" for a table, which would fill the screen."""
    text = str(value)
    return text if len(text) <= LONGEST_OPTION else "…"


def summary(report: dict[str, Any]) -> str:
    """Return one line: what happened, and what to do."""
    totals, runs = report.get("totals"), report["runs"]
    if not totals or not totals["calls"]:
        return "nothing has run yet: call the model or its pipeline"
    calls, reused = totals["calls"], totals["calls"] - totals["refreshes"]
    spent = ", ".join(
        f"{totals[f'{what}_ms'] / 1000:.1f} s went into {name}"
        for what, name in (("capture", "captures"), ("compile", "torch.compile"))
        if totals[f"{what}_ms"]
    )
    spent = f"; {spent}" if spent else ""
    if not reused:
        threshold = ", a higher threshold" if "threshold" in report["policy"] else ""
        return (
            f"none of {calls:,} calls reused cached values, so nothing is faster{spent}. Take more "
            f"steps{threshold}, or a policy that refreshes less often"
        )
    speed = runs[-1]["speedup"] if runs else None
    faster = (
        f"; the last run was {speed:.2f} times as fast as one of refreshes only" if speed else ""
    )
    return (
        f"{reused:,} of {calls:,} calls reused cached values{faster}{spent}. See what that does to "
        "the pictures: fxcache compare PIPELINE, or your own loop after fxcache.restore(model)"
    )


def attribution_lines(counts: dict[str, int]) -> list[str]:
    """Advice about calls whose trajectory was unclear, which costs time."""
    calls, lines = f"of {counts['calls']} calls", []
    if count := counts["by_latent"]:
        lines.append(
            f"{count} {calls} were attributed by comparing latents "
            f"({counts['device_waits']} waited for the device): fxcache.session(model) around the "
            "loop (with a key for each tile), or fxcache.optimize(pipe), makes that unnecessary"
        )
    if count := counts["ambiguous"]:
        lines.append(
            f"{count} {calls} refreshed because they may belong to another request: open one "
            "fxcache.session(model, key=...) for each request"
        )
    if count := counts["lone_starts"]:
        lines.append(
            f"{count} {calls} began a run after several runs of a single call: open "
            "fxcache.session(model) around the loop"
        )
    if count := counts["evicted"]:
        lines.append(
            f"{count} trajectories were dropped before their end: raise "
            "CacheConfig(max_trajectories=...)"
        )
    return lines


def cut_line(capture: dict[str, Any]) -> str:
    """Return the line about the cut of a capture."""
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
    """Return the table of runs without unused columns, and a legend of those that are left."""
    rows = list(map(row_of, range(len(runs)), runs))
    columns = [name for name in rows[0] if any(row[name] != UNUSED for row in rows)]
    table = tabulate([{name: row[name] for name in columns} for row in rows], headers="keys")
    shown = [([n for n in names if n in columns], text) for names, text in LEGEND.items()]
    return "\n".join((table, "", *(f"{', '.join(n)}: {text}" for n, text in shown if n)))


def row_of(index: int, run: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a run, by column."""
    waits = sum(run[f"{what}_waits"] for what in ("timestep", "signal", "guidance"))
    captures = ", ".join("dropped" if c < 0 else str(c) for c in run.get("captures", ()))
    return {
        "run": index,
        "capture": captures or UNUSED,
        "began with": run["started"],
        "steps": run["steps"],
        "refreshed": len(run["refreshes"]),
        "refresh ms": rounded(run["refresh_ms"]),
        "reuse ms": rounded(run["reuse_ms"]),
        "compile s": f"{run['compile_ms'] / 1000:.1f}" if run.get("compile_ms") else UNUSED,
        "speed-up": rounded(run["speedup"]),
        "ideal": rounded(run["ideal_speedup"]),
        "halved": len(run["halved"]) or UNUSED,
        "waits": waits or UNUSED,
        "refreshed because": "; ".join(f"{k} ({v})" for k, v in run["reasons"].items()),
    }


def rounded(value: float | None) -> str:
    """``value`` with two digits, or a dash for None."""
    return UNUSED if value is None else f"{value:.2f}"
