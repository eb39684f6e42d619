"""Tests tables of modulations with diffusers' own transformer pipelines."""

from collections.abc import Callable

import pytest
import torch

import fxcache
from tests.pipelines.build import STEPS, Made, flux, sd3

pytestmark = pytest.mark.usefixtures("shared_captures")


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    ("make", "tabulated"),
    [
        # FLUX's makes a tensor of each timestep: the first run of a schedule tells the next, and
        # all schedules begin with the same timestep.
        (flux, [0, STEPS, STEPS, 1, STEPS - 2]),
        (sd3, [STEPS, STEPS, STEPS, STEPS - 2, STEPS - 2]),
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["module", "pipeline"])
def test_a_table_of_modulations(make: Callable[[], Made], tabulated: list[int], whole: bool):
    model, draw, pipe = make()
    schedules = [STEPS] * 3 + [STEPS - 2] * 2
    plain = [draw(num_inference_steps=steps, guidance_scale=3.0) for steps in schedules]
    fxcache.optimize(pipe if whole else model, fxcache.Uniform(1), hoist="table")
    for steps, expected in zip(schedules, plain, strict=True):
        found = draw(num_inference_steps=steps, guidance_scale=3.0)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    report = fxcache.report(model)
    assert [len(run.tabulated) for run in report.runs] == tabulated
    (capture,) = report.captures
    assert capture.hoisted_weight_bytes > 0
