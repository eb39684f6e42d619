"""Holds measured values to expected ones."""

from collections.abc import Iterator, Mapping
from typing import Any

from fxcache.gate.findings import Finding, Status
from fxcache.gate.ratios import Ratio
from fxcache.gate.tree import KIND, MISSING, Path, differences, entry_of

MORE_IS_BETTER = frozenset({"psnr_db", "ssim"})
LESS_IS_BETTER = frozenset({
    "flops", "bytes", "nodes", "launches", "cached_bytes", "graph_bytes", "refresh", "reuse",
    "graphs", "guards", "frames", "recompilations", "registers", "spills", "shared", "device_waits",
    "timestep_waits", "signal_waits", "guidance_waits",
})  # fmt: skip
# CPUs of another kind add in another order, which moves the quality a little.
TOLERANCES = {"psnr_db": 0.1, "ssim": 0.001}
MAX_NAMED = 6  # operators in one explanation
TYPICAL = "p50_ms"
NOTED_CHANGE = 0.25  # of a typical time, which one machine reproduces no better


NOTHING_YET = "nothing is expected of this case yet: write the measured values, with a reason"


def exact_findings(
    expected: Any, measured: Any, causes: Mapping[str, list[str]]
) -> Iterator[Finding]:
    """Yield a finding for each count that differs.

    Args:
        expected: The tree of expected counts; ``MISSING`` if there is none.
        measured: The tree of measured counts.
        causes: Explanations by the first name of a path.
    """
    differing = [d for d in differences(expected, measured) if not within_tolerance(*d)]
    for path, before, now in sorted(differing, key=lambda d: isinstance(d[1], int | float)):
        cause = "; ".join(causes.get(path[0], [])) if path else ""
        cause = cause or changed_operators(path, expected, measured)
        yield Finding("exact", entry_of(path), Status.FAILED, message_of(path, before, now), cause)


def within_tolerance(path: Path, before: Any, now: Any) -> bool:
    """Return whether two values are equal up to their tolerance, if they have one."""
    if not (is_number(before) and is_number(now)):
        return False
    return bool(abs(before - now) <= TOLERANCES.get(path[-1], 0))


def message_of(path: Path, before: Any, now: Any) -> str:
    """Say how a value differs from the expected one, and whether that is an improvement."""
    if before is MISSING and not path:
        return NOTHING_YET
    if before is MISSING:
        inputs = now.get("inputs") if isinstance(now, Mapping) else None
        return "there is no expected value" + (f" for a call with {inputs}" if inputs else "")
    if now is MISSING:
        return f"nothing was measured; expected: {shown(before)}"
    text = f"{shown(before)} → {shown(now)}"
    if is_number(before) and is_number(now):
        change = f" ({(now - before) / before:+.1%})" if before else ""
        better = path[-1] in (MORE_IS_BETTER if now > before else LESS_IS_BETTER)
        return text + change + (", an improvement" if better else "")
    if isinstance(before, list) and isinstance(now, list):
        return text + changed_items(before, now)
    return text


def changed_items(before: list[Any], now: list[Any]) -> str:
    """Say which items of a list are new, and which are gone."""
    new = [item for item in now if item not in before]
    gone = [item for item in before if item not in now]
    texts = [f"new: {shown(new)}"] if new else []
    texts += [f"gone: {shown(gone)}"] if gone else []
    return f" ({'; '.join(texts)})" if texts else ""


def changed_operators(path: Path, expected: Any, measured: Any) -> str:
    """Name the operators that the graph at ``path`` calls more or less often than expected."""
    if "graphs" not in path and "inductor" not in path:
        return ""
    place = path.index("graphs" if "graphs" in path else "inductor")
    graph = (*path[:place], "graphs", *path[place + 1 : place + 2], "operators")
    before, now = at(expected, graph), at(measured, graph)
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)) or "operators" in path:
        return ""
    changed = [f"{p[-1]} {b} → {n}" for p, b, n in differences(before, now, ("operators",))]
    more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
    return ", ".join(changed[:MAX_NAMED]) + more


def at(tree: Any, path: Path) -> Any:
    """Return the part of a tree at ``path``; None if there is none."""
    for name in path:
        if isinstance(tree, list):
            tree = dict(enumerate(tree)).get(int(name))
        else:
            tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def ratio_findings(
    expected: Any, measured: Mapping[str, Ratio], margin: float
) -> Iterator[Finding]:
    """Yield a finding for each ratio of times that is above its limit, or may be.

    A time may move only as FLOPs do. The limit is the upper bound of the expected ratio, multiplied
    by the change of the FLOP ratio and by 1 + ``margin``.
    """
    if not isinstance(expected, Mapping):
        yield Finding("ratios", "", Status.FAILED, NOTHING_YET)
        return
    for name in dict.fromkeys((*expected, *measured)):
        ratio = measured.get(name)
        if ratio is None:
            yield Finding("ratios", name, Status.FAILED, "was expected, and not measured")
        elif name not in expected:
            yield Finding("ratios", name, Status.FAILED, "there is no expected value")
        else:
            yield from ratio_finding(name, ratio, expected[name], margin)


def ratio_finding(
    name: str, ratio: Ratio, expected: Mapping[str, float], margin: float
) -> Iterator[Finding]:
    """Yield a finding for one ratio if it is not surely below its limit."""
    by_flops = ratio.flops / expected["flops"] if expected["flops"] else 1.0
    limit = expected["high"] * by_flops * (1 + margin)
    text = f"{ratio.time:.3f}, 95 % {ratio.low:.3f} to {ratio.high:.3f}; at most {limit:.3f}"
    cause = f"the ratio of FLOPs is {ratio.flops:.3f}"
    if ratio.low > limit:
        yield Finding("ratios", name, Status.FAILED, text, cause)
    elif ratio.high > limit:
        yield Finding("ratios", name, Status.INCONCLUSIVE, text, cause)
    elif ratio.high < expected["low"] * by_flops / (1 + margin):
        yield Finding("ratios", name, Status.NOTE, f"{text}; faster than expected", cause)


def advisory_findings(expected: Any, measured: Mapping[str, Any], device: str) -> Iterator[Finding]:
    """Yield a note for each kind of step whose typical time differs much, or is not expected."""
    if not isinstance(expected, Mapping):
        message = f"there are no expected times of {device}"
        yield Finding("advisory", device, Status.NOTE, message)
        return
    for kind, times in measured.items():
        before, now = expected.get(kind, {}).get(TYPICAL), times[TYPICAL]
        if before is None or abs(now / before - 1) > NOTED_CHANGE:
            message = message_of((TYPICAL,), MISSING if before is None else before, now)
            yield Finding("advisory", f"{device}/{kind}/{TYPICAL}", Status.NOTE, message)


def shown(value: Any) -> str:
    """Return a value as text: large whole numbers with commas, and a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Mapping) and KIND in value:
        options = (f"{name}={option}" for name, option in value.items() if name != KIND)
        return f"{value[KIND]}({', '.join(options)})"
    if isinstance(value, Mapping):
        return ", ".join(map(str, value)) or "nothing"
    return str(value)


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
