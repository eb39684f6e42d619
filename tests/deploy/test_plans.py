"""Tests that artifacts keep calibrated policies, plans and their trained parts, bit for bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests import tiny
from tests.calibration import test_error_correction as correction
from tests.calibration import test_scale_shift as scale_shift
from tests.deploy.test_round_trip import STEPS, denoised
from tests.engines import optimized_engine
from tests.loops import refreshes, sample
from tests.plain import dit

pytestmark = pytest.mark.usefixtures("shared_captures")
POINT = "layers.1.out"
CALIBRATED: dict[str, tuple[type[fxcache.Policy], dict[str, Any]]] = {
    "MagCache": (fxcache.MagCache, {"threshold": 0.5}),
    "SmoothCache": (fxcache.SmoothCache, {"alpha": 0.5}),
    "BlockCaching": (fxcache.BlockCaching, {"threshold": 0.5}),
    "TeaCache": (fxcache.TeaCache, {"threshold": 0.4}),
}


def assert_round_trip(
    model: nn.Module, run: Callable[[nn.Module], list[Tensor]], folder: Path
) -> None:
    """Check that the loaded model decides and computes as ``model``, and that both reuse."""
    expected = run(model)
    loaded = fxcache.load(fxcache.export(model, folder))
    found = run(loaded)
    assert all(map(torch.equal, found, expected))
    assert refreshes(loaded) == refreshes(model)
    (exported, *_), (read, *_) = fxcache.report(model).runs, fxcache.report(loaded).runs
    assert (read.schedule, read.ideal_speedup) == (exported.schedule, exported.ideal_speedup)
    assert exported.ideal_speedup is not None
    assert exported.ideal_speedup > 1
    theirs, ours = optimized_engine(loaded).settings, optimized_engine(model).settings
    assert (theirs.policy, theirs.cut, theirs.forecast) == (ours.policy, ours.cut, ours.forecast)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", CALIBRATED)
def test_calibrated_plans(name, tmp_path):
    policy, options = CALIBRATED[name]
    model = dit(4)
    plan = fxcache.calibrate(model, policy, lambda: denoised(model), **options)
    fxcache.optimize(model, plan=plan)
    assert_round_trip(model, denoised, tmp_path / "artifact")


def run_of_known_length(model: nn.Module) -> list[Tensor]:
    with fxcache.session(model, num_steps=STEPS):
        return denoised(model)


def test_a_trained_router(tmp_path):
    points = [
        f"layers.{i}.{part}"
        for i in range(4)
        for part in ("out", f"scaled_dot_product_attention_{2 * i + 1}", "mlp")
    ]
    scores = {
        name: tuple(float((step + i) % 3 > 1) for step in range(STEPS))
        for i, name in enumerate(points)
    }
    model = fxcache.optimize(dit(4), fxcache.LearnedRouter(0.5, scores=scores))
    assert_round_trip(model, run_of_known_length, tmp_path / "artifact")


def test_the_schedule_of_a_tuned_plan(tmp_path):
    policy = fxcache.Scheduled(names=(POINT,), reused=((), (POINT,)) * (STEPS // 2))
    model = fxcache.optimize(dit(4), policy, cut=POINT)
    assert_round_trip(model, run_of_known_length, tmp_path / "artifact")


def test_attentions_that_are_extrapolated(tmp_path):
    unet = fxcache.optimize(tiny.small_unet(), fxcache.FasterCache(3))

    def run(model: nn.Module) -> list[Tensor]:
        with fxcache.session(model, num_steps=STEPS):
            return [sample(model, STEPS, **tiny.inputs(seed=5))]

    assert_round_trip(unet, run, tmp_path / "artifact")


def test_scale_shift_layers(tmp_path):
    unet = tiny.small_unet()
    plan = scale_shift.unet_plan(unet)
    plan = replace(plan, adjustment=scale_shift.random_layers(unet))
    fxcache.optimize(unet, plan=plan)
    assert_round_trip(unet, lambda model: [scale_shift.rounds(model)(1)], tmp_path / "artifact")


def test_drift_corrections(tmp_path):
    unet = tiny.small_unet()
    plan, _ = correction.measured(unet, correction.plan_for(unet))
    fxcache.optimize(unet, plan=plan)

    def run(model: nn.Module) -> list[Tensor]:
        return [sample(model, correction.STEPS, **tiny.inputs(seed=5))]

    assert_round_trip(unet, run, tmp_path / "artifact")
