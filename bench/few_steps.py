"""What caching does in runs of few steps: ``python -m bench.few_steps [--document]``.

For each bundled model and number of steps, pictures of the default policy, of uniform caching and
of the tuner's plans are compared with those without caching. So are pictures of fewer steps. The
results go to ``bench/results/few_steps.json`` and ``docs/few-steps.md``.
"""

import argparse
import json
from dataclasses import replace
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from bench.quality.__main__ import NAMES, ROOT, pipeline
from bench.quality.claims import interpolated
from bench.quality.fitting import Fitter, ideal_speedup
from bench.quality.metrics import likeness
from bench.quality.sampling import draw_all, split_captions
from bench.quality.settings import FEWER, TUNED, Candidate, FixedInterval, Setting, Steps, Tuned
from fxcache.errors import FxcacheError
from fxcache.pipelines.calibrate import Sampling
from fxcache.policies import ProtectedEnds, Uniform
from fxcache.report.pareto import Point
from fxcache.tuning.trial import optimized

RESULTS, DOCUMENT = ROOT / "bench" / "results" / "few_steps.json", ROOT / "docs" / "few-steps.md"
LENGTHS = (4, 8)
PICTURES = 32
SPEEDUPS = (1.2, 1.3, 1.6, 2.0)


HEAD = " ".join(
    [
        "# Runs of few steps\n\n"
        "What caching does to the bundled models in runs of four and eight DDIM steps:",
        "{pictures} pictures a row, float32 on the CPU, torch {torch}.",
        "PSNR is against the same run without caching, as the mean over pictures.",
        "The speed-up is the ratio of the denoiser's FLOPs.",
        "*Fewer steps* is the PSNR that fewer steps reach at the same FLOPs, interpolated.",
        "Made by `python -m bench.few_steps`.\n\n"
        "The models are not distilled, so this does not show what distilled models do.",
        "In a run of two steps the default policy refreshes both, and fxcache says so.",
        "A run of one step has nothing to reuse, and the report says so.",
        "Small pipelines with the solvers of LCM, SDXL Turbo, FLUX schnell and SANA Sprint follow",
        "the same schedule: all steps of 1 or 2 refresh, 3 of 4, and 4 of 8.",
    ]
)


def settings(length: int) -> list[Setting]:
    """Return the settings to measure in runs of this length."""
    return [
        *(Steps(FEWER, steps) for steps in range(length - 1, length // 2 - 1, -1)),
        FixedInterval("default", ProtectedEnds()),
        *(FixedInterval("Uniform", Uniform(interval)) for interval in (2, 3)),
        *(Tuned(TUNED, speedup) for speedup in SPEEDUPS),
    ]


def images(pipe: Any, candidate: Candidate, sampling: Sampling, model: Any) -> tuple[Tensor, float]:
    """Return the images of a candidate, and its speed-up from FLOPs."""
    fewer = sampling.steps / candidate.steps
    sampling = replace(sampling, steps=candidate.steps)
    if candidate.settings is None:
        return draw_all(pipe, sampling), fewer
    with optimized(model, candidate.settings) as engine:
        return draw_all(pipe, sampling), ideal_speedup(engine.runs)


def measured(name: str, length: int) -> list[dict[str, Any]]:
    """Measure one model in runs of ``length`` steps."""
    shown, calibration, _ = split_captions()
    shown = replace(shown, prompts=shown.prompts[:PICTURES], steps=length)
    fitter = Fitter(pipeline(name), replace(calibration, steps=length))
    originals = draw_all(fitter.pipeline, shown)
    rows = []
    for setting in settings(length):
        row: dict[str, Any] = {"curve": setting.curve}
        try:
            candidate = setting.candidate(fitter)
            drawn, speedup = images(fitter.pipeline, candidate, shown, fitter.model)
        except FxcacheError as error:
            row |= {"label": str(setting.to_dict().get("speedup", "")), "error": error.what}
        else:
            row |= {"label": candidate.label, "speedup": speedup}
            row |= likeness(originals, drawn)._asdict()
        rows.append(row)
    return rows


def document(results: dict[str, Any]) -> str:
    """Return the page about ``results``."""
    parts = [HEAD.format(pictures=PICTURES, torch=results["torch"])]
    for name, lengths in results["models"].items():
        for length, rows in lengths.items():
            parts += [f"## {name}, {length} steps", table(rows)]
    return "\n\n".join(parts) + "\n"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table; each is compared with fewer steps at the same FLOPs."""
    fewer = [Point(r["speedup"], r["psnr_db"]) for r in rows if r["curve"] == FEWER]
    return tabulate(
        [line(row, fewer) for row in rows],
        headers="keys",
        tablefmt="github",
        disable_numparse=True,
    )


def line(row: dict[str, Any], fewer: list[Point]) -> dict[str, str]:
    """Return a row of the table."""
    name = {"": f"{row['curve']}, {row['label']}"}
    if "error" in row:
        return name | {"speed-up": "–", "PSNR, dB": row["error"]}
    found = name | {"speed-up": f"{row['speedup']:.2f}×", "PSNR, dB": f"{row['psnr_db']:.1f}"}
    other = None if row["curve"] == FEWER else interpolated(fewer, row["speedup"])
    if other is None:
        return found | {"fewer steps, dB": "–", "closer": "–"}
    closer = "**yes**" if row["psnr_db"] > other else "no"
    return found | {"fewer steps, dB": f"{other:.1f}", "closer": closer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--document", action="store_true", help="only write the page")
    if not parser.parse_args().document:
        torch.set_num_threads(1)
        models = {name: {str(n): measured(name, n) for n in LENGTHS} for name in NAMES}
        text = json.dumps({"torch": torch.__version__, "models": models}, indent=2)
        RESULTS.write_text(text + "\n", encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    DOCUMENT.write_text(document(results), encoding="utf-8")


if __name__ == "__main__":
    main()
