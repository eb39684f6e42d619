"""The tables of ``docs/compiled.md``, from the results of ``python -m bench.compiled``."""

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from tabulate import tabulate

Found = Mapping[str, Any]  # the results of one model in one way


def compiled_figures(results: Mapping[str, Any]) -> str:
    """Return the tables, from the content of ``bench/results/compiled.json``."""
    rows = [
        (name, way, found)
        for name, ways in results["models"].items()
        for way, found in ways.items()
    ]
    environment = results["environment"]
    return "\n\n".join(
        [
            f"Measured with torch {environment['torch']} and Python {environment['python']}, in "
            "float32, batch 1.",
            table(speedup for row in rows for speedup in speedup_rows(*row)),
            table(step_row(*row) for row in rows),
            *(table(profile_rows(*row)) for row in rows),
        ]
    )


def speedup_rows(name: str, way: str, found: Found) -> Iterator[dict[str, str]]:
    """Yield the speed-ups of one model in one way, by interval."""
    for item in found["intervals"]:
        ratio = item["realised_over_plain_ideal"]
        yield {
            "a run of 30 steps": f"{name}, {way}",
            "interval": str(item["interval"]),
            "realised": f"{item['realised']:.2f}×",
            "ideal": f"{item['plain_ideal']:.2f}×",
            "realised ÷ ideal": f"{ratio['median']:.3f} ({ratio['low']:.3f}–{ratio['high']:.3f})",
            "ideal with these options": f"{item['ideal']:.2f}×",
        }


def step_row(name: str, way: str, found: Found) -> dict[str, str]:
    """Return the times of steps by kind: the median over the intervals."""

    def typical(key: str) -> float:
        return median(item[key] for item in found["intervals"])

    return {
        "a step": f"{name}, {way}",
        "original": milliseconds(typical("original_ms")),
        "refresh": milliseconds(typical("refresh_ms")),
        "refresh ÷ original": f"{typical('refresh_over_original'):.3f}",
        "reuse": milliseconds(typical("reuse_ms")),
        "reuse ÷ original": f"{typical('reuse_over_original'):.4f}",
        "reuse's share of the FLOPs": f"{flop_share(found):.4f}",
        "first step of a run": milliseconds(typical("start_ms")),
    }


def profile_rows(name: str, way: str, found: Found) -> Iterator[dict[str, str]]:
    """Yield the time of each kind of operator, and what a reuse step spends beyond its FLOPs."""
    profile, share = found["profile_ms"], flop_share(found)
    kinds = {kind: [profile[step][kind] for step in STEPS] for kind in profile["original"]}
    kinds["all"] = [sum(times) for times in zip(*kinds.values(), strict=True)]
    for kind, (original, refresh, reuse) in kinds.items():
        yield {
            f"profile: {name}, {way}": kind,
            "original": milliseconds(original),
            "refresh": milliseconds(refresh),
            "refresh − original": signed(refresh - original),
            "reuse": milliseconds(reuse),
            "share of FLOPs × original": milliseconds(share * original),
            "reuse − that": signed(reuse - share * original),
        }


STEPS = ("original", "refresh", "reuse")


def flop_share(found: Found) -> float:
    return float(found["cut"]["reuse_flops"] / found["cut"]["full_flops"])


def milliseconds(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"


def signed(value: float) -> str:
    return f"{value:+.2f} ms"


def table(rows: Iterator[dict[str, str]]) -> str:
    return tabulate(list(rows), headers="keys", tablefmt="github", disable_numparse=True)
