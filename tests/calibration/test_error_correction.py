"""Tests Error-Optimized Cache: compares trends with means by hand, and checks their effect."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

import fxcache
from fxcache.calibration.error_correction import measure
from fxcache.calibration.training import prediction_error
from fxcache.codecs.codec import CacheEntry, ReadContext
from fxcache.codecs.drift import DriftCoefficients, DriftCorrection
from fxcache.codecs.scale_shift import ScaleShift
from fxcache.errors import PlanError, ScheduleError
from fxcache.policies import Explicit, FirstBlock, Policy
from fxcache.step import Step
from tests import tiny
from tests.engines import optimized_engine
from tests.loops import sample

pytestmark = pytest.mark.usefixtures("shared_captures")

STEPS = 6
POLICY = Explicit(steps=(0, 3))
CUT = "up_blocks.0"  # its output meets no skip connection that is computed later


def plan_for(model: nn.Module, policy: Policy = POLICY, cut: Any = CUT) -> fxcache.Plan:
    return fxcache.Plan.of(model, policy, cut)


def runs(model: nn.Module, index: int = 0) -> None:
    """Sample one round: two runs of two images each."""
    for seed in (2 * index, 2 * index + 1):
        sample(model, STEPS, **tiny.inputs(seed=seed))


def measured(model: nn.Module, plan: fxcache.Plan) -> tuple[fxcache.Plan, DriftCorrection]:
    found = measure(model, plan, lambda index: runs(model, index))
    assert found.correction is not None
    return found, found.correction


def outputs(model: nn.Module, path: str, run: Callable[[], object]) -> list[Tensor]:
    """Record the outputs of the module at each call."""
    found: list[Tensor] = []
    module = model.get_submodule(path)
    hook = module.register_forward_hook(lambda _m, _a, value: found.append(value.clone()))
    run()
    hook.remove()
    return found


def trends_by_hand(unet: nn.Module) -> Tensor:
    """Return the mean change of each channel over images and positions: [steps - 1, C]."""
    seen = torch.stack(outputs(unet, CUT, lambda: runs(unet))).unflatten(0, (2, STEPS))
    changes = seen.diff(dim=1)  # [runs, steps - 1, B, C, H, W]
    return changes.double().mean(dim=(0, 2, 4, 5))


class Corrected:
    """A hook that returns the value of the last refresh plus the trend."""

    def __init__(self, trends: Tensor, refreshed: tuple[int, ...], applied: list[bool]):
        self.trends, self.refreshed, self.applied = trends, refreshed, applied
        self.step = -1

    def __call__(self, _module: nn.Module, _arguments: Any, value: Tensor) -> Tensor:
        self.step += 1
        if self.step in self.refreshed:
            self.held, self.at = value, self.step
            return value
        moved = self.trends[self.at : self.step].sum(0) * self.applied[self.step]
        return self.held + moved[:, None, None].float()


def test_reuse_adds_the_mean_change_of_each_channel():
    unet = tiny.small_unet()
    plan, correction = measured(unet, plan_for(unet))
    (trend,) = correction.trends.values()
    assert trend.shape[:2] == (STEPS, 1), "not guided"
    expected = trends_by_hand(unet)
    torch.testing.assert_close(trend[1:, 0].double(), expected, rtol=1e-5, atol=1e-7)
    assert not trend[0].any()
    assert correction.applied is not None
    applied = correction.applied.tolist()
    assert any(applied), "nothing to see"
    assert not applied[0], "a refresh"
    hooked = tiny.small_unet()
    hook = Corrected(expected, POLICY.steps, applied)
    hooked.get_submodule(CUT).register_forward_hook(hook)
    fxcache.optimize(unet, plan=plan)
    found = sample(unet, STEPS, **tiny.inputs(seed=7))
    torch.testing.assert_close(found, sample(hooked, STEPS, **tiny.inputs(seed=7)))


class Deep(nn.Module):
    """A module whose value moves by the same amount for every image."""

    def __init__(self, tokens: bool) -> None:
        super().__init__()
        self.mixed, self.drift = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(1, 4)
        self.tokens = tokens

    def forward(self, shown: Tensor, time: Tensor) -> Tensor:
        value = self.mixed(shown) + self.drift(time)[:, :, None, None]
        return value.flatten(2).mT.contiguous() if self.tokens else value


class Drifting(nn.Module):
    """A model whose deep value depends on the prompt, and moves equally for every image."""

    def __init__(self, tokens: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.deep, self.last = Deep(tokens), nn.Conv2d(4, 4, 1)

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Any:
        time = timestep.float().reshape(1, 1) / 1000
        shown = encoder_hidden_states.mean((1, 2))[:, None, None, None].expand(sample.shape)
        deep = self.deep(shown + 0 * sample, time)  # only what depends on the latent is cached
        deep = deep.mT.reshape(sample.shape) if self.deep.tokens else deep
        return UNet2DConditionOutput(sample=self.last(deep) + 0.1 * sample)


@pytest.mark.parametrize("tokens", [False, True])
def test_a_drift_of_all_images_is_corrected(tokens):
    model = Drifting(tokens).eval()
    expected = sample(model, STEPS, **tiny.inputs(seed=9))
    plan = plan_for(model, Explicit(steps=(0,)), "deep")
    corrected, correction = measured(model, plan)
    assert correction.applied is not None
    assert correction.applied.tolist() == [False] + [True] * (STEPS - 1)
    errors = [prediction_error(model, p, sampler(model), range(3)) for p in (plan, corrected)]
    assert errors[1] < 1e-8 * errors[0]
    fxcache.optimize(model, plan=corrected)
    torch.testing.assert_close(sample(model, STEPS, **tiny.inputs(seed=9)), expected)


@pytest.mark.parametrize("factor", [-1, 0.45])
def test_a_correction_that_does_not_help_is_not_applied(factor):
    """The second round drifts in the other direction, or less than half as far."""
    model = Drifting().eval()

    drift = model.deep.drift.weight.clone()

    def sampled(index: int) -> None:
        with torch.no_grad():
            model.deep.drift.weight.copy_(drift * (factor if index else 1))
        runs(model, index)

    plan = measure(model, plan_for(model, Explicit(steps=(0,)), "deep"), sampled)
    assert plan.correction is not None
    assert plan.correction.applied is not None
    assert not plan.correction.applied.any()
    with torch.no_grad():
        model.deep.drift.weight.copy_(drift)
    fxcache.optimize(model, plan=plan)
    found = sample(model, STEPS, **tiny.inputs(seed=9))
    fxcache.restore(model)
    fxcache.optimize(model, policy=plan.policy, cut="deep")
    assert torch.equal(found, sample(model, STEPS, **tiny.inputs(seed=9)))


def sampler(model: nn.Module) -> Callable[[int], object]:
    return lambda seed: sample(model, STEPS, **tiny.inputs(seed=100 + seed))


def test_a_plan_stores_the_correction(tmp_path):
    unet = tiny.small_unet()
    plan, _ = measured(unet, plan_for(unet))
    plan.save(tmp_path / "plan.json")
    assert fxcache.Plan.load(tmp_path / "plan.json").correction == plan.correction
    assert (tmp_path / "plan.safetensors").exists()


def test_a_correction_requires_its_points_and_run_length():
    unet = tiny.small_unet()
    plan, _ = measured(unet, plan_for(unet))
    other = fxcache.Plan(POLICY, "mid_block", plan.model, correction=plan.correction)
    fxcache.optimize(unet, plan=other)
    with pytest.raises(PlanError, match="other cache points"):
        runs(unet)
    fxcache.restore(unet)
    fxcache.optimize(unet, plan=plan)
    with pytest.raises(ScheduleError, match="runs of 6 steps; this run has 7"):
        sample(unet, 7, **tiny.inputs())


def test_forecasts_are_refused():
    unet = tiny.small_unet()
    plan, _ = measured(unet, plan_for(unet))
    with pytest.raises(PlanError, match="forecast"):
        replace(plan, forecast=fxcache.Taylor(1))


@torch.no_grad()
def guided(model: nn.Module, seed: int, steps: int = STEPS) -> Tensor:
    """Return a guided batch of four images."""
    latents = tiny.inputs(batch=4, seed=seed)["sample"]
    text = tiny.inputs(batch=1)["encoder_hidden_states"].repeat(8, 1, 1)
    text[:4] = 0
    scheduler = tiny.ddim()
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        u, c = model(torch.cat([latents] * 2), t, encoder_hidden_states=text).sample.chunk(2)
        latents = scheduler.step(u + 3 * (c - u), t, latents).prev_sample
    return latents


def test_each_half_of_the_guidance_has_its_trend():
    """Each trend is the mean of one half. A batch of one half uses the trend of that half."""
    unet = tiny.small_unet()
    seen = torch.stack(outputs(unet, CUT, lambda: guided(unet, seed=1)))
    plan = measure(unet, plan_for(unet), lambda index: guided(unet, seed=1 + index))
    assert plan.correction is not None
    (trend,) = plan.correction.trends.values()
    changes = seen.diff(dim=0).unflatten(1, (2, 4)).double().mean((2, 4, 5))  # [steps, 2, C]
    torch.testing.assert_close(trend[1:].double(), changes, rtol=1e-5, atol=1e-7)
    first, second = trend.unbind(1)
    assert not torch.allclose(first, second, rtol=0.1)
    fxcache.optimize(unet, plan=plan)
    guided(unet, seed=3)
    cut = next(iter(optimized_engine(unet).captures.values())).plan
    for part, count in ((0, 4), (1, 4), (None, 8)):
        entries = {0: CacheEntry((torch.empty(count, 1),), (3,))}
        context = ReadContext(entries, (0,), Step(5, STEPS), part)
        correction = DriftCorrection(plan.correction.trends)
        (found,) = DriftCoefficients(correction, cut).at(context).values()
        of_both = trend[4:6].sum(0).repeat_interleave(4, dim=0)
        expected = of_both if part is None else of_both.chunk(2)[part]
        torch.testing.assert_close(found, expected)
    with pytest.raises(PlanError, match="halves have the same latents"):
        runs(unet)


def test_an_observing_policy_is_corrected_at_its_points():
    """Its automatic cut begins after the signal."""
    model = tiny.class_pipeline(["a", "b"], blocks=4).transformer
    plan = fxcache.Plan.of(model, FirstBlock(1e6))

    def run(index: int) -> None:
        torch.manual_seed(index)
        latents, labels = torch.randn(2, 4, 8, 8), torch.tensor([0, 1])
        with torch.no_grad(), fxcache.session(model, num_steps=STEPS):
            for t in torch.arange(900, 0, -150):
                latents = latents - 0.1 * model(latents, t.expand(2), labels).sample[:, :4]

    corrected = measure(model, plan, run)
    fxcache.optimize(model, plan=corrected)
    run(5)
    assert fxcache.report(model).runs[-1].refreshes == [0]


def test_an_adjusted_plan_is_not_corrected():
    unet = tiny.small_unet()
    plan = replace(plan_for(unet), adjustment=ScaleShift({"a.0.weight": torch.zeros(2, 2)}))
    with pytest.raises(PlanError, match="measure the correction first"):
        measured(unet, plan)


def test_runs_of_different_lengths_are_not_mixed():
    unet = tiny.small_unet()

    def sampled(index: int) -> None:
        sample(unet, STEPS, **tiny.inputs(seed=index))
        sample(unet, STEPS - 2, **tiny.inputs(seed=index))

    with pytest.raises(ScheduleError, match="different lengths were seen: 4, 6 steps"):
        measure(unet, plan_for(unet), sampled)


def test_a_compiled_module_is_unwrapped_for_measurement():
    unet = tiny.small_unet()
    compiled: Any = torch.compile(unet, backend="eager")
    plan = measure(compiled, fxcache.Plan.of(compiled, POLICY, CUT), lambda i: runs(unet, i))
    assert plan == measured(unet, plan_for(unet))[0]


@pytest.mark.parametrize(
    "broken",
    [
        {"up_blocks.0.0": torch.zeros(STEPS)},
        {"up_blocks.0.0": torch.zeros(STEPS, 1, 3)},
        {"up_blocks.0.0": torch.zeros(STEPS, 1, 32), "b.0": torch.zeros(STEPS - 1, 1, 32)},
        {"elsewhere.0": torch.zeros(STEPS, 1, 32)},
    ],
)
def test_trends_of_another_shape_are_refused(broken):
    unet = tiny.small_unet()
    fxcache.optimize(unet, plan=replace(plan_for(unet), correction=DriftCorrection(broken)))
    with pytest.raises(PlanError):
        runs(unet)
