"""What caching does in runs of few steps: ``python -m bench.few_steps --out FILE``.

For each bundled model and number of steps, pictures of the default policy, of uniform caching and
of the tuner's plans are compared with those without caching. So are pictures of fewer steps.
Speed-ups are ratios of the denoiser's FLOPs.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor

from bench.output import run
from bench.quality.__main__ import NAMES, pipeline
from bench.quality.fitting import Fitter, ideal_speedup
from bench.quality.metrics import likeness
from bench.quality.sampling import draw_all, split_captions
from bench.quality.settings import FEWER, TUNED, Candidate, FixedInterval, Setting, Steps, Tuned
from fxcache.errors import FxcacheError
from fxcache.pipelines.calibrate import Sampling
from fxcache.policies import ProtectedEnds, Uniform
from fxcache.tuning.trial import optimized

LENGTHS = (4, 8)
PICTURES = 32
SPEEDUPS = (1.2, 1.3, 1.6, 2.0)


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


def measure() -> dict[str, Any]:
    """Measure both models at each length."""
    return {name: {str(n): measured(name, n) for n in LENGTHS} for name in NAMES}


if __name__ == "__main__":
    run(__doc__, measure)
