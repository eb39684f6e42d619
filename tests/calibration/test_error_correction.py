"""Error-Optimized Cache: trends against the same means taken by hand, and what they change."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

import fxcache
from fxcache.calibration.error_correction import Sums, measure
from fxcache.calibration.training import prediction_error
from fxcache.errors import PlanError, ScheduleError
from fxcache.schedule import Explicit, Policy, Uniform
from tests import tiny
from tests.loops import sample

STEPS = 6
POLICY = Explicit(steps=(0, 3))
CUT = "up_blocks.0"  # its output meets no skip connection that is computed later


def plan_for(model: nn.Module, policy: Policy = POLICY, cut: Any = CUT) -> fxcache.Plan:
    return fxcache.Plan.of(model, policy, cut)


def runs(model: nn.Module, seeds: range = range(2)) -> None:
    for seed in seeds:
        sample(model, STEPS, **tiny.inputs(seed=seed))


def outputs(model: nn.Module, path: str, run: Callable[[], object]) -> list[Tensor]:
    """What the module returned at each call."""
    found: list[Tensor] = []
    module = model.get_submodule(path)
    hook = module.register_forward_hook(lambda _m, _a, value: found.append(value.clone()))
    run()
    hook.remove()
    return found


def trends_by_hand(unet: nn.Module) -> list[Tensor]:
    """The mean change of each channel over pictures and positions, over two runs."""
    seen = torch.stack(outputs(unet, CUT, lambda: runs(unet))).unflatten(0, (2, STEPS))
    changes = seen.diff(dim=1)  # [runs, steps - 1, B, C, H, W]
    return list(changes.double().mean(dim=(0, 2, 4, 5)))


class Corrected:
    """A hook that returns what it saw last, moved on by the trend."""

    def __init__(self, trends: list[Tensor], refreshed: tuple[int, ...]):
        self.trends, self.refreshed, self.step = trends, refreshed, -1

    def __call__(self, _module: nn.Module, _arguments: Any, value: Tensor) -> Tensor:
        self.step += 1
        if self.step in self.refreshed:
            self.held = value
        else:
            self.held = self.held + self.trends[self.step - 1][:, None, None].float()
        return self.held


def test_reuse_is_moved_on_by_the_mean_change_of_each_channel():
    unet = tiny.small_unet()
    plan = measure(unet, plan_for(unet), lambda: runs(unet))
    (trend,) = plan.correction.trends.values()
    expected = trends_by_hand(unet)
    helped = [step for step in range(1, STEPS) if trend[step].any()]
    assert helped, "nothing to see"
    assert not trend[0].any()
    for step in helped:
        torch.testing.assert_close(trend[step].double(), expected[step - 1], rtol=1e-5, atol=1e-7)
    applied = [e if step in helped else 0 * e for step, e in enumerate(expected, start=1)]
    hooked = tiny.small_unet()
    hooked.get_submodule(CUT).register_forward_hook(Corrected(applied, POLICY.steps))
    fxcache.optimize(unet, plan=plan)
    found = sample(unet, STEPS, **tiny.inputs(seed=7))
    torch.testing.assert_close(found, sample(hooked, STEPS, **tiny.inputs(seed=7)))


@pytest.mark.parametrize("seed", range(20))
def test_it_is_judged_by_leaving_one_out(seed):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(3, generator=generator)
    rows = 0.6 * mean + torch.randn(4, 3, generator=generator)
    others = [torch.cat([rows[:i], rows[i + 1 :]]).mean(0) for i in range(len(rows))]
    left = sum(float((row - other).square().sum()) for row, other in zip(rows, others, strict=True))
    sums = Sums(torch.zeros(3, dtype=torch.float64))
    for part in rows.double().split(2):
        sums.add(part)
    assert sums.helps is (left < float(rows.square().sum()))


def test_the_seeds_above_judge_both_ways():
    judged = set()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        mean = torch.randn(3, generator=generator)
        sums = Sums(torch.zeros(3))
        sums.add(0.6 * mean + torch.randn(4, 3, generator=generator))
        judged.add(sums.helps)
    assert judged == {True, False}


class Deep(nn.Module):
    """Moves by the same for every picture."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed, self.drift = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(1, 4)

    def forward(self, shown: Tensor, time: Tensor) -> Tensor:
        return self.mixed(shown) + self.drift(time)[:, :, None, None]


class Drifting(nn.Module):
    """Its deep value depends on the prompt, and moves by the same for every picture."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.deep, self.last = Deep(), nn.Conv2d(4, 4, 1)

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Any:
        time = timestep.float().reshape(1, 1) / 1000
        shown = encoder_hidden_states.mean((1, 2))[:, None, None, None].expand(sample.shape)
        deep = self.deep(shown + 0 * sample, time)  # only what depends on the latent is cached
        return UNet2DConditionOutput(sample=self.last(deep) + 0.1 * sample)


def test_a_drift_that_all_pictures_share_is_corrected_away():
    model = Drifting().eval()
    expected = sample(model, STEPS, **tiny.inputs(seed=9))
    plan = plan_for(model, Explicit(steps=(0,)), "deep")
    corrected = measure(model, plan, lambda: runs(model))
    errors = [prediction_error(model, p, sampler(model), range(3)) for p in (plan, corrected)]
    assert errors[1] < 1e-8 * errors[0]
    fxcache.optimize(model, plan=corrected)
    torch.testing.assert_close(sample(model, STEPS, **tiny.inputs(seed=9)), expected)


def sampler(model: nn.Module) -> Callable[[int], object]:
    return lambda seed: sample(model, STEPS, **tiny.inputs(seed=100 + seed))


def test_a_plan_keeps_it(tmp_path):
    unet = tiny.small_unet()
    plan = measure(unet, plan_for(unet), lambda: runs(unet))
    plan.save(tmp_path / "plan.json")
    assert fxcache.Plan.load(tmp_path / "plan.json").correction == plan.correction
    assert (tmp_path / "plan.safetensors").exists()


def test_it_belongs_to_its_points_and_to_the_length_of_its_runs():
    unet = tiny.small_unet()
    plan = measure(unet, plan_for(unet), lambda: runs(unet))
    other = fxcache.Plan(POLICY, "mid_block", plan.model, correction=plan.correction)
    fxcache.optimize(unet, plan=other)
    with pytest.raises(PlanError, match="other cache points"):
        runs(unet)
    fxcache.restore(unet)
    fxcache.optimize(unet, plan=plan)
    with pytest.raises(ScheduleError, match="runs of 6 steps; this run has 7"):
        sample(unet, 7, **tiny.inputs())


def test_forecasts_and_single_pictures_are_refused():
    unet = tiny.small_unet()
    with pytest.raises(PlanError, match="two or more"):
        measure(unet, plan_for(unet), lambda: sample(unet, STEPS, **tiny.inputs(batch=1)))
    plan = measure(unet, plan_for(unet), lambda: runs(unet))
    with pytest.raises(PlanError, match="forecast"):
        fxcache.Plan(Uniform(2, forecast_order=1), CUT, plan.model, correction=plan.correction)
