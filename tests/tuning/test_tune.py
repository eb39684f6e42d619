"""Tests the tuner on a small U-Net: its measurements, its plans, and the restored model."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.calibration.calibration import recording
from fxcache.codecs.codec import ReadContext
from fxcache.codecs.history import History, HistoryWeights
from fxcache.codecs.identity import Identity
from fxcache.forecasts import Taylor
from fxcache.kernels.forecast_read.reference import forecast_read
from fxcache.partition.request import AUTO
from fxcache.policies import FirstBlock, Scheduled, Uniform
from fxcache.runtime import captures
from fxcache.runtime.feature_cache import FeatureCache
from fxcache.step import Step
from fxcache.tuning.options import Options
from fxcache.tuning.profile import Profile, forecast
from fxcache.tuning.trial import Trial, psnr_db
from fxcache.tuning.tune import LEAST_SPEEDUP, SEARCHES, Tuner
from tests import tiny
from tests.loops import sample
from tests.runtime.stored import store, stored

pytestmark = pytest.mark.usefixtures("shared_captures")

T = 10


def sampled(unet: nn.Module) -> Tensor:
    """Return two latents after ten steps, scaled to numbers from 0 to 1."""
    return torch.sigmoid(sample(unet, T, **tiny.inputs(batch=2)) / 50)


@pytest.fixture(scope="module")
def tuner() -> Tuner:
    unet = tiny.small_unet()
    options = Options(cuts=2, gaps=5, order=1, probes=4)
    return Tuner(unet, lambda: sampled(unet), options)


@torch.no_grad()
def test_the_profile_equals_the_error_of_reuse():
    """Compared with a U-Net whose middle block returns its output of some steps before."""
    unet, profile = tiny.small_unet(), Profile(gaps=3, order=0)
    with recording(unet, profile, ["mid_block"]):
        sample(unet, 5, **tiny.inputs())
    held: list[Tensor] = []
    calls: list[dict[str, Any]] = []
    middle = unet.mid_block.register_forward_hook(lambda *a: held.append(a[-1].clone()))
    whole = unet.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(dict(kwargs, args=args)), with_kwargs=True
    )
    sample(unet, 5, **tiny.inputs())
    middle.remove()
    whole.remove()
    for step in range(1, 5):
        given = dict(calls[step])
        args = given.pop("args")
        expected = unet(*args, **given).sample
        for gap in range(1, min(step, 3) + 1):
            handle = unet.mid_block.register_forward_hook(lambda *_: held[step - gap])  # noqa: B023
            error = (unet(*args, **given).sample - expected).square().mean()
            handle.remove()
            assert profile.errors("mid_block", 0)[step, gap - 1] == pytest.approx(
                float(error), rel=1e-3
            )
    assert math.isinf(profile.errors("mid_block", 0)[1, 1])


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("gap", [1, 2, 4])
def test_profiled_forecasts_equal_the_caches(order, gap):
    distance, cache = gap + 1, FeatureCache()
    values = torch.randn(30, 3, dtype=torch.float64).cumsum(0)
    refreshed = [29 - gap - i * distance for i in range(order, -1, -1)]
    for step in refreshed:
        codec = History(Taylor(order)) if order else Identity()
        store(cache, values[step], step, codec, fresh=step == refreshed[0])
    expected, *_ = refreshes = stored(cache)
    if order:
        context = ReadContext(cache.entries, (0,), Step(29, 30))
        (weights,) = HistoryWeights(Taylor(order)).at(context).values()
        expected = forecast_read(refreshes, weights[0])
    past = [(value,) for value in values[:29].flip(0)]
    (found,) = forecast(past, gap, order)
    torch.testing.assert_close(found, expected)


def test_few_past_steps_limit_the_order():
    past = [(torch.tensor([4.0]),), (torch.tensor([3.0]),), (torch.tensor([2.0]),)]
    (found,) = forecast(past, gap=1, order=3)
    assert found.item() == 5.0, "one difference of two steps, however high the order"


def test_psnr():
    zeros = torch.zeros(2, 5)
    assert psnr_db(zeros + 0.1, zeros) == pytest.approx(20)
    assert psnr_db(zeros, zeros) == math.inf


def test_results_with_nan_never_win(tuner, monkeypatch):
    found = iter([math.nan, 30.0, math.nan, 20.0])

    def tried(policy: Any, cut: Any, predicted: float, forecast: Any) -> Trial:
        return Trial(policy, cut, 1.5, next(found, 10.0), predicted, forecast)

    monkeypatch.setattr(tuner, "tried", tried)
    assert tuner.best(1.5).psnr_db == 30


def test_the_model_is_captured_once_for_all_trials(monkeypatch):
    """Each trial has another policy, another cut or another forecast."""
    counted, capture = [], vars(captures)["capture"]

    def counting(*args: Any) -> Any:
        counted.append(args)
        return capture(*args)

    monkeypatch.setattr(captures, "capture", counting)
    unet = tiny.small_unet()
    tuner = Tuner(unet, lambda: sampled(unet), Options(cuts=2, mixed=1, gaps=2, probes=2))
    tuner.best(1.5)
    tuner.tried(FirstBlock(0.1), AUTO)
    assert len(counted) == 1


@pytest.mark.parametrize("speedup", [1.0, 0.5, math.nan])
def test_a_speedup_that_saves_nothing_is_refused(tuner, speedup):
    with pytest.raises(fxcache.ConfigError, match="saves nothing"):
        tuner.best(speedup)


def test_a_model_is_unwrapped_and_must_not_be_optimised(tuner):
    unet = tiny.small_unet()
    compiled: Any = torch.compile(unet, backend="eager")
    options = Options(cuts=1, gaps=2, order=0, probes=2)
    assert Tuner(compiled, lambda: sampled(unet), options).model is unet
    fxcache.optimize(unet)
    with pytest.raises(fxcache.StateError, match="optimised already"):
        Tuner(unet, lambda: sampled(unet), options)


def test_an_unknown_length_is_refused_at_once():
    unet = tiny.small_unet()
    calls = []

    def untold() -> Tensor:
        calls.append(1)
        latents, text = tiny.inputs()["sample"], tiny.inputs()["encoder_hidden_states"]
        for timestep in range(900, 100, -200):
            latents = latents - 0.1 * unet(latents, timestep, text).sample
        return latents

    with torch.no_grad(), pytest.raises(fxcache.ScheduleError, match="how many steps"):
        Tuner(unet, untold)
    assert len(calls) == 1


@pytest.mark.parametrize("speedup", [1.3, 1.7, 2.2])
def test_the_plan_reaches_its_speed_and_beats_uniform(tuner, speedup):
    trial = tuner.best(speedup)
    assert trial.speedup >= speedup
    rivals = [tuner.tried(Uniform(n), "auto") for n in (2, 3, 4, 5)]
    slower = [r.psnr_db for r in rivals if r.speedup >= trial.speedup - 0.01]
    assert trial.psnr_db > max(slower, default=0.0)


def test_a_plan_repeats_its_trial(tuner, tmp_path):
    trial = tuner.best(2.0)
    tuner.plan(trial, {"steps": T}).save(tmp_path / "plan.json")
    unet = fxcache.optimize(tiny.small_unet(), plan=tmp_path / "plan.json", hoist=None)
    assert psnr_db(sampled(unet), tuner.original) == trial.psnr_db
    (run,) = fxcache.report(unet).runs
    assert run.ideal_speedup == pytest.approx(trial.speedup)


def test_a_quality_is_reached_at_the_highest_speed_found(tuner):
    easy, hard = tuner.closest(20.0), tuner.closest(40.0)
    assert easy.psnr_db >= 20
    assert hard.psnr_db >= 40
    assert easy.speedup > hard.speedup


def test_a_budget_of_time(tuner, monkeypatch):
    assert all(ms > 0 for ms in tuner._step_ms(next(iter(tuner.cuts))))
    monkeypatch.setattr(tuner, "_step_ms", lambda cut: (10.0, 2.0))
    trial = tuner.within(60.0)
    reuses = sum(map(bool, trial.policy.reused))
    assert 10 * (T - reuses) + 2 * reuses <= 60 < 10 * (T - reuses + 1) + 2 * (reuses - 1)
    with pytest.raises(fxcache.CutError, match="already"):
        tuner.within(200.0)


def test_an_unreachable_target_is_refused(tuner):
    with pytest.raises(fxcache.CutError, match="pass a smaller speed-up"):
        tuner.best(11.0)
    with pytest.raises(fxcache.CutError, match="decibels"):
        tuner.closest(500.0)


def test_a_quality_that_the_slowest_schedule_misses_is_searched_no_further(tuner, monkeypatch):
    searched: list[float] = []
    best = tuner.best

    def noting(speedup: float, costs: Any = None) -> Trial:
        searched.append(speedup)
        return best(speedup, costs)

    monkeypatch.setattr(tuner, "best", noting)
    with pytest.raises(fxcache.CutError, match="decibels"):
        tuner.closest(500.0)
    assert searched[-1] == LEAST_SPEEDUP
    assert len(searched) < SEARCHES


def test_plans_mix_cuts_and_the_model_is_restored(tuner):
    assert len(tuner.cuts) == 2
    assert type(tuner.model) is type(tiny.small_unet())
    tried = {cut for _, found in tuner.solutions(1.2) for cut in found.reused if cut}
    assert tried == set(tuner.cuts)


@pytest.mark.parametrize(
    "bad", [{"cuts": 0}, {"gaps": 1.5}, {"order": -1}, {"order": 9}, {"probes": True}]
)
def test_wrong_options_raise_config_error(bad):
    with pytest.raises(fxcache.ConfigError, match=next(iter(bad))):
        Options(**bad)


def test_a_model_that_is_not_sampled():
    with pytest.raises(fxcache.CutError, match="was not called"):
        Tuner(tiny.small_unet(), lambda: torch.zeros(1, 3))


def test_scheduled_is_a_table():
    policy = Scheduled(names=("a", "b"), reused=((), ("a",), ("a", "b")))
    assert [sorted(row) for row in policy.rows] == [["a", "b"], ["b"], []]
    with pytest.raises(fxcache.ConfigError, match="names"):
        Scheduled(names=("a",), reused=((), ("c",)))
    with pytest.raises(fxcache.ConfigError, match="list"):
        Scheduled(names="ab", reused=((),))  # type: ignore[arg-type]
