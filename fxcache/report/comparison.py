"""The rows of ``fxcache compare``: a table with definitions, a CSV file, and a chart."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate

from fxcache.errors import ModelFileError
from fxcache.report.pareto import Point, draw_pareto

DEFINITIONS = (
    "steps: the denoising steps that the pipeline was asked for.",
    "refreshes: the calls of the denoiser that reused nothing, of all its calls.",
    "FLOPs: denoiser FLOPs of the run without caching, divided by those of this run (counted).",
    "denoiser: the time of all denoiser calls of a run without caching, divided by that of this "
    "run; the median of n pairs of runs that took turns, and the range of all.",
    "pipeline: the same for the whole call of the pipeline, with text encoder and decoder.",
    "PSNR, SSIM: against the pictures without caching, in 8-bit RGB, averaged over the pictures; "
    "identical ones count as 100 dB.",
    "first run: the time of the run before the measured ones, which captures, rewrites and warms "
    "up; it is in no speed-up.",
    "capture: the part of the first run in which the graph was captured; later rows use the same "
    "capture.",
    "compile: the part of the first run in which torch.compile compiled what no row before used.",
)


@dataclass(frozen=True)
class Spread:
    """A ratio of times over paired runs.

    Attributes:
        median: The median of the pairs.
        low: The least.
        high: The greatest.
        n: The number of pairs.
    """

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, ratios: Sequence[float]) -> "Spread":
        """Return the spread of ``ratios``."""
        return cls(median(ratios), min(ratios), max(ratios), len(ratios))

    def __str__(self) -> str:
        if self.n == 1:
            return f"{self.median:.2f}× (n=1)"
        return f"{self.median:.2f}× ({self.low:.2f}–{self.high:.2f}, n={self.n})"


@dataclass(frozen=True)
class Row:
    """One row of a comparison.

    Attributes:
        label: The setting.
        kind: ``"original"``, ``"policy"`` or ``"fewer steps"``.
        steps: The number of denoising steps.
        calls: The number of calls of denoisers in a run.
        refreshes: How many of these reused nothing.
        flops: FLOPs of the denoisers without caching, divided by those of this row.
        denoiser: The speed-up of the denoisers; None without caching.
        pipeline: The speed-up of the whole pipeline; None without caching.
        psnr_db: PSNR against the pictures without caching, in dB.
        ssim: SSIM against them, at most 1.
        first_s: The seconds of the first run, which is not among the measured ones.
        capture_s: The seconds of it in which graphs were captured.
        compile_s: The seconds of it in which torch.compile compiled.
    """

    label: str
    kind: str
    steps: int
    calls: int
    refreshes: int
    flops: float
    denoiser: Spread | None
    pipeline: Spread | None
    psnr_db: float
    ssim: float
    first_s: float
    capture_s: float
    compile_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def caption(self) -> str:
        """The text beside the row's pictures."""
        if self.denoiser is None or self.pipeline is None:
            return f"{self.label}: {self.steps} steps"
        return (
            f"{self.label}: denoiser {self.denoiser.median:.2f}×, pipeline "
            f"{self.pipeline.median:.2f}×, PSNR {self.psnr_db:.1f} dB, SSIM {self.ssim:.3f}"
        )


def as_table(rows: Sequence[Row]) -> str:
    """Return the table, and one line below it for each column that says what it is."""
    cells = [
        {
            "": row.label,
            "steps": row.steps,
            "refreshes": f"{row.refreshes} of {row.calls}",
            "FLOPs": f"{row.flops:.2f}×",
            "denoiser": str(row.denoiser or "–"),
            "pipeline": str(row.pipeline or "–"),
            "PSNR": f"{row.psnr_db:.2f} dB" if row.denoiser else "–",
            "SSIM": f"{row.ssim:.4f}" if row.denoiser else "–",
            "first run": f"{row.first_s:.1f} s",
            "capture": f"{row.capture_s:.1f} s" if row.capture_s else "–",
            "compile": f"{row.compile_s:.1f} s" if row.compile_s else "–",
        }
        for row in rows
    ]
    if not any(row.compile_s for row in rows):  # in eager mode
        cells = [{k: v for k, v in row.items() if k != "compile"} for row in cells]
    defined = [text for text in DEFINITIONS if text.split(",")[0].split(":")[0] in cells[0]]
    return "\n".join((tabulate(cells, headers="keys"), "", *defined))


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """Write one line for each row, with its numbers in full.

    Raises:
        ModelFileError: The file cannot be written.
    """
    lines = []
    for row in rows:
        data = row.to_dict()
        for name in ("denoiser", "pipeline"):
            spread = data.pop(name) or dict.fromkeys(("median", "low", "high", "n"), "")
            data |= {f"{name}_speedup_{part}": value for part, value in spread.items()}
        lines.append(data)
    try:
        with file.open("w", newline="", encoding="utf-8") as written:
            writer = csv.DictWriter(written, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
    except OSError as error:
        raise ModelFileError(
            f"the table cannot be written: {error}", where=str(file), remedy="pass another --csv"
        ) from error


def draw_chart(rows: Sequence[Row], file: Path, title: str) -> None:
    """Plot PSNR against the speed-up of the denoiser: one curve for fewer steps, one mark a policy.

    Raises:
        ModelFileError: matplotlib is not installed, or the file cannot be written.
    """
    curves: dict[str, list[Point]] = {}
    for row in rows:
        if row.denoiser:
            name = row.kind if row.kind == "fewer steps" else row.label
            curves.setdefault(name, []).append(Point(row.denoiser.median, row.psnr_db))
    draw_pareto(curves, file, title, speed="speed-up of the denoiser, median of paired runs")
