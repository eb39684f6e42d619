"""Generates images with and without fxcache in turns: ``fxcache run --compare``."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from fxcache.depths import at_depth
from fxcache.errors import FxcacheWarning
from fxcache.pipelines.compare import ORIGINAL, POLICY, Race, spread
from fxcache.pipelines.drawing import WARM_UP_STEPS, Drawing
from fxcache.pipelines.entrant import Entrant
from fxcache.report.compare import Comparison, likeness
from fxcache.report.report import Report, report_of
from fxcache.report.sheet import sheet
from fxcache.runtime.engine import Engine

MOST_PAIRS = 5
PAIRS_S = 10.0  # no further pair begins that would end later


@dataclass
class StepTimes:
    """The median times of steps in each measured run, in milliseconds.

    Attributes:
        original_ms: Those of a denoiser call without fxcache.
        refresh_ms: Those of a refresh.
        reuse_ms: Those of a reuse step; empty if there is none.
    """

    original_ms: list[float] = field(default_factory=list)
    refresh_ms: list[float] = field(default_factory=list)
    reuse_ms: list[float] = field(default_factory=list)

    def add(self, original: Entrant, reported: Report) -> None:
        """Add the last run of each."""
        run = reported.runs[-1]
        self.original_ms.append(original.typical_ms)
        self.refresh_ms += [run.refresh_ms] if run.refresh_ms is not None else []
        self.reuse_ms += [run.reuse_ms] if run.reuse_ms is not None else []


def compare(
    pipeline: Any,
    drawing: Drawing,
    out: Path,
    pairs: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Generate the images with and without fxcache, and write both rows to ``out``.

    Args:
        pipeline: The pipeline, which is not optimised.
        drawing: The images to generate.
        out: The file of the images.
        pairs: The number of measured runs of each, which take turns. None for as many as end
            within ``PAIRS_S`` seconds, at least one and at most ``MOST_PAIRS``.
        say: Called with messages about the progress.
    """
    race, times = Race(pipeline, say), StepTimes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FxcacheWarning)  # the run may be too short
        original = race.enter("no caching", ORIGINAL, drawing, WARM_UP_STEPS)
        steps = drawing.steps if drawing.plan else WARM_UP_STEPS
        cached = race.enter("fxcache", POLICY, drawing, steps)
    name, engine = next(iter(cached.engines.items()))
    started, most = time.perf_counter(), pairs or MOST_PAIRS
    for index in range(most):
        spent = time.perf_counter() - started
        if pairs is None and index and spent * (index + 1) / index > PAIRS_S:
            break
        say(f"pair {index + 1} of {'' if pairs else 'at most '}{most}")
        turn = (original, cached) if index % 2 == 0 else (cached, original)
        at_depth(index, most, partial(race.run_all, turn))
        reported = report_of(race.denoisers[name], engine)
        times.add(original, reported)
    measured = measure(original, cached, engine, reported, times)
    sheet(rows_of(original, cached, measured), drawing.prompts).save(out)
    return measured


def rows_of(original: Entrant, cached: Entrant, measured: Comparison) -> dict[str, list[Any]]:
    """Return the images of both, by their captions."""
    return {
        f"original: {mean_ms(original):.1f} ms a step": original.images,
        f"fxcache: {mean_ms(cached):.1f} ms a step, {measured.speedup:.2f} times as fast, "
        f"PSNR {measured.psnr_db:.1f} dB": cached.images,
    }


def mean_ms(entrant: Entrant) -> float:
    """Return the mean time of a denoiser call in milliseconds, in the median run."""
    return 1000 * median(entrant.denoiser_s) / entrant.calls


def measure(
    original: Entrant, cached: Entrant, engine: Engine, reported: Report, times: StepTimes
) -> Comparison:
    """Return the measurements. Refreshes, FLOPs and bytes are those of the first denoiser."""
    speedup, run = spread(original.denoiser_s, cached.denoiser_s), reported.runs[-1]
    like = likeness(original.images, cached.images)
    return Comparison(
        steps=run.steps,
        refreshes=len(run.refreshes),
        original_ms=median(times.original_ms),
        refresh_ms=median(times.refresh_ms or [0.0]),
        reuse_ms=median(times.reuse_ms) if times.reuse_ms else None,
        speedup=speedup.median,
        speedup_low=speedup.low,
        speedup_high=speedup.high,
        pairs=speedup.n,
        ideal_speedup=run.ideal_speedup or 1.0,
        share_saved=reported.captures[-1].cut["share_saved"],
        cached_bytes=engine.store.nbytes,
        psnr_db=like.psnr_db,
        ssim=like.ssim,
    )
