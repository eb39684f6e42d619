"""Compares calibrations with measurements by hooks, and calibrated runs with caches by hooks."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy
import pytest
import torch
from diffusers import MagCacheConfig
from torch import Tensor, nn

import fxcache
from fxcache.calibration.teacache import fitted
from fxcache.codecs.drift import DriftCorrection
from fxcache.policies import BlockCaching, MagCache, SmoothCache, TeaCache, Uniform
from fxcache.runtime.module import engine_of
from tests import tiny
from tests.engines import variants_of
from tests.loops import refreshes, sample
from tests.test_peers import FLUX, STEPS, denoise, model_and_call

pytestmark = pytest.mark.usefixtures("shared_captures")

T = 8
CALIBRATED = (BlockCaching, SmoothCache, MagCache, TeaCache)


def relative_l1(now: Tensor, then: Tensor) -> float:
    return float((now - then).abs().sum() / now.abs().sum())


def tensor_of(result: Any) -> Tensor:
    found = result[0] if isinstance(result, tuple) else getattr(result, "sample", result)
    assert isinstance(found, Tensor)
    return found


def attentions(unet: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in unet.named_modules() if type(m).__name__ == "Transformer2DModel"}


def layers(unet: nn.Module, kind: str) -> dict[str, nn.Module]:
    return {n: m for n, m in unet.named_modules() if n.rpartition(".")[2] == kind}


def recorded(
    unet: nn.Module, modules: dict[str, nn.Module], value: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, list[Tensor]]:
    """Record ``value(input, output)`` of each module at each step of an uncached run."""
    found: dict[str, list[Tensor]] = {name: [] for name in modules}
    handles = [
        module.register_forward_hook(
            lambda _, given, result, name=name: found[name].append(
                value(given[0], tensor_of(result)).clone()
            )
        )
        for name, module in modules.items()
    ]
    sample(unet, T, **tiny.inputs())
    for handle in handles:
        handle.remove()
    return found


def cached_by_hand(
    unet: nn.Module, schedules: dict[str, list[int]], residual: bool, **inputs: Any
) -> Tensor:
    """Sample with modules that repeat their last scheduled output, or their difference."""
    for name, steps in schedules.items():
        module = unet.get_submodule(name)
        module.forward = reusing(module.forward, steps, residual)
    return sample(unet, T, **inputs)


def reusing(forward: Callable[..., Any], steps: list[int], residual: bool) -> Callable[..., Any]:
    state: dict[str, Any] = {"step": -1}

    def cached(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        state["step"] += 1
        if state["step"] in steps:
            result = forward(x, *args, **kwargs)
            state["held"] = tensor_of(result) - x if residual else tensor_of(result)
            return result
        value = x + state["held"] if residual else state["held"]
        return (value,) if residual else value

    return cached


def test_block_caching_measures_the_residual_branches():
    unet = tiny.small_unet()
    plan = fxcache.calibrate(unet, BlockCaching, lambda: sample(unet, T, **tiny.inputs()))
    branches = recorded(unet, attentions(unet), lambda x, y: y - x)
    assert isinstance(plan.policy, BlockCaching)
    assert plan.policy.changes.keys() == branches.keys()
    for name, values in branches.items():
        expected = [0.0] + [relative_l1(values[s], values[s - 1]) for s in range(1, T)]
        assert plan.policy.changes[name] == pytest.approx(expected, rel=1e-3)


def test_block_caching_reuses_the_residual_branches():
    unet = tiny.small_unet()
    plan = fxcache.calibrate(
        unet,
        BlockCaching,
        lambda: sample(unet, T, **tiny.inputs()),
        threshold=0.05,
        max_variants=99,
    )
    inputs = tiny.inputs(seed=1)
    assert isinstance(plan.policy, BlockCaching)
    schedules = {b: plan.policy.refreshes(c) for b, c in plan.policy.changes.items()}
    assert len({tuple(s) for s in schedules.values()}) > 1, "schedules that tell nothing"
    expected = cached_by_hand(tiny.small_unet(), schedules, residual=True, **inputs)
    fxcache.optimize(unet, plan=plan)
    torch.testing.assert_close(sample(unet, T, **inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["attn1", "attn2", "ff"])
def test_smoothcache_measures_each_kind_of_layer(kind):
    unet = tiny.small_unet()
    plan = fxcache.calibrate(unet, SmoothCache, lambda: sample(unet, T, **tiny.inputs()))
    outputs = recorded(unet, layers(unet, kind), lambda _, y: y)
    assert isinstance(plan.policy, SmoothCache)
    for step in range(1, T):
        for gap in range(1, min(step, 6) + 1):
            errors = [relative_l1(v[step], v[step - gap]) for v in outputs.values()]
            mean = sum(errors) / len(errors)
            assert plan.policy.errors[kind][step][gap - 1] == pytest.approx(mean, rel=1e-3)


def test_smoothcache_reuses_each_kind_of_layer():
    unet = tiny.small_unet()
    plan = fxcache.calibrate(
        unet, SmoothCache, lambda: sample(unet, T, **tiny.inputs()), alpha=0.05, max_variants=99
    )
    inputs = tiny.inputs(seed=1)
    assert isinstance(plan.policy, SmoothCache)
    by_kind = {kind: plan.policy.refreshes(e) for kind, e in plan.policy.errors.items()}
    assert len({tuple(s) for s in by_kind.values()}) > 1, "schedules that tell nothing"
    schedules = {name: by_kind[kind] for kind in by_kind for name in layers(unet, kind)}
    expected = cached_by_hand(tiny.small_unet(), schedules, residual=False, **inputs)
    fxcache.optimize(unet, plan=plan)
    torch.testing.assert_close(sample(unet, T, **inputs), expected, rtol=1e-4, atol=1e-4)


def test_magcache_measures_the_ratios_of_diffusers(capsys):
    model, call = model_and_call(FLUX)

    def run() -> None:
        with fxcache.session(model, num_steps=STEPS):
            denoise(model, call)

    plan = fxcache.calibrate(model, MagCache, run)
    model.enable_cache(MagCacheConfig(num_inference_steps=STEPS, calibrate=True))

    def predict(**inputs: Any) -> Any:
        with model.cache_context("run"):
            return model(**inputs)

    denoise(predict, call)
    printed = capsys.readouterr().out
    expected = json.loads(printed[printed.index("[", printed.index("]") + 1) :])
    assert isinstance(plan.policy, MagCache)
    assert plan.policy.ratios == pytest.approx(expected, rel=1e-4)


def test_teacaches_fit_equals_numpys():
    generator = torch.Generator().manual_seed(0)
    x = (0.01 + 0.3 * torch.rand(60, generator=generator, dtype=torch.float64)).tolist()
    y = [0.5 * v - 2 * v**2 + 9 * v**4 + 0.01 * (i % 3) for i, v in enumerate(x)]
    expected = numpy.polyfit(x, y, 4)
    assert fitted(list(zip(x, y, strict=True))) == pytest.approx(expected.tolist(), rel=1e-5)


def test_teacaches_fit_of_few_points_goes_through_them():
    assert fitted([(0.1, 0.2), (0.2, 0.4)]) == pytest.approx((2.0, 0.0), abs=1e-9)
    assert fitted([(0.0, 0.0)]) == (0.0,)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("kind", CALIBRATED)
def test_calibration_does_not_change_samples_or_the_model(kind):
    unet, found = tiny.small_unet(), []
    expected = sample(unet, T, **tiny.inputs())
    before = dict(vars(unet))
    fxcache.calibrate(unet, kind, lambda: found.append(sample(unet, T, **tiny.inputs())))
    assert torch.equal(found[0], expected)
    assert vars(unet) == before
    assert type(unet) is type(tiny.small_unet())


@pytest.mark.sweep(2)
@pytest.mark.parametrize("kind", CALIBRATED)
def test_calibration_is_deterministic_and_plans_survive_json(kind, tmp_path):
    def plan() -> fxcache.Plan:
        unet = tiny.small_unet()
        return fxcache.calibrate(unet, kind, lambda: sample(unet, T, **tiny.inputs()))

    first = plan()
    assert plan() == first
    first.save(tmp_path / "plan.json")
    assert fxcache.Plan.load(tmp_path / "plan.json") == first


def test_a_plan_refuses_another_model():
    unet = tiny.small_unet()
    plan = fxcache.calibrate(unet, MagCache, lambda: sample(unet, T, **tiny.inputs()))
    with pytest.raises(fxcache.PlanError, match=r"[0-9,]+ parameters, this has [0-9,]+"):
        fxcache.optimize(tiny.unet(), plan=plan)
    with pytest.raises(fxcache.PlanError, match="UNet2DConditionModel, this is UNet2DModel"):
        fxcache.optimize(tiny.unconditional_unet(), plan=plan)
    other = tiny.small_unet()
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.5)
    with pytest.raises(fxcache.PlanError, match="mean magnitude"):
        fxcache.optimize(other, plan=plan)
    assert engine_of(other) is None
    fxcache.optimize(tiny.small_unet().to(torch.bfloat16), plan=plan)


def test_a_plan_with_a_policy_is_refused():
    unet = tiny.small_unet()
    plan = fxcache.calibrate(unet, MagCache, lambda: sample(unet, T, **tiny.inputs()))
    with pytest.raises(fxcache.ConfigError, match="leave out cut, policy and forecast"):
        fxcache.optimize(unet, plan=plan, policy=Uniform())


def test_a_policy_without_calibration_is_refused():
    unet = tiny.small_unet()
    with pytest.raises(fxcache.ConfigError, match="TeaCache"):
        fxcache.calibrate(unet, Uniform, lambda: None)
    with pytest.raises(fxcache.ScheduleError, match="no run"):
        fxcache.calibrate(unet, MagCache, lambda: None)
    with pytest.raises(fxcache.ConfigError, match="has no option alpha"):
        fxcache.calibrate(unet, MagCache, lambda: sample(unet, 3, **tiny.inputs()), alpha=1)
    assert type(unet) is type(tiny.small_unet())


def test_plans_with_similar_names_keep_separate_weights(tmp_path):
    unet = tiny.small_unet()
    for value in (1, 2):
        trends = {"mid_block.0": torch.full((T, 1, 32), float(value))}
        plan = replace(fxcache.Plan.of(unet, Uniform(2)), correction=DriftCorrection(trends))
        plan.save(tmp_path / f"uniform-0.{value}")
    for value in (1, 2):
        found = fxcache.Plan.load(tmp_path / f"uniform-0.{value}").correction
        assert found is not None
        assert found.trends["mid_block.0"][0, 0, 0] == value
    with pytest.raises(fxcache.ModelFileError, match="file with its weights"):
        plan.save(tmp_path / "plan.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"weights": ...},
        {"policy": "Uniform"},
        {"policy": None},
        {"model": {"model": "UNet", "parameters": 1, "shapes": "", "magnitudes": None}},
        {"model": None},
        {"settings": ...},
    ],
)
def test_edited_plans_are_refused(change, tmp_path):
    file = tmp_path / "plan.json"
    fxcache.Plan.of(tiny.small_unet(), Uniform(2)).save(file)
    data = json.loads(file.read_text()) | change
    file.write_text(json.dumps({k: v for k, v in data.items() if v is not ...}))
    with pytest.raises((fxcache.PlanError, fxcache.ConfigError)):
        fxcache.Plan.load(file)


def test_magnitudes_of_other_weights_are_a_difference():
    unet = tiny.small_unet()
    plan = fxcache.Plan.of(unet, Uniform(2))
    other = replace(plan, model=replace(plan.model, magnitudes={"elsewhere": 1.0}))
    with pytest.raises(fxcache.PlanError, match="elsewhere"):
        fxcache.optimize(unet, plan=other)


def test_infinite_weights_are_refused(tmp_path):
    trends = {"mid_block.0": torch.full((T, 1, 32), torch.nan)}
    plan = fxcache.Plan.of(tiny.small_unet(), Uniform(2))
    replace(plan, correction=DriftCorrection(trends)).save(tmp_path / "plan.json")
    with pytest.raises(fxcache.PlanError, match="not all finite"):
        fxcache.Plan.load(tmp_path / "plan.json")


def test_runs_of_different_lengths_are_refused():
    unet = tiny.small_unet()

    def several() -> None:
        for steps in (4, 3):
            sample(unet, steps, **tiny.inputs())

    with pytest.raises(fxcache.ScheduleError, match="different lengths"):
        fxcache.calibrate(unet, MagCache, several)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"fxcache_plan": 99}', '{"fxcache_plan": 1}', None]
)
def test_files_without_a_plan_are_refused(content, tmp_path):
    file = tmp_path / "plan.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises((fxcache.PlanError, fxcache.ModelFileError)):
        fxcache.optimize(tiny.small_unet(), plan=file)


def test_calibrated_points_of_another_model_are_refused():
    unet = tiny.small_unet()
    plan = fxcache.calibrate(unet, BlockCaching, lambda: sample(unet, T, **tiny.inputs()))
    larger = tiny.unet()
    fxcache.optimize(larger, policy=plan.policy)
    with pytest.raises(fxcache.ConfigError, match="other cache points"):
        sample(larger, T, **tiny.inputs())


def test_variants_are_bounded():
    unet = tiny.small_unet()
    changes = {
        block: (0.0, *(float((s + i) % 2) for s in range(1, T)))
        for i, block in enumerate(attentions(unet))
    }
    policy = BlockCaching(0.5, changes=changes, max_variants=2)
    fxcache.optimize(unet, policy=policy, hoist=None)
    sample(unet, T, **tiny.inputs())
    variants = variants_of(unet)
    run = {frozenset(policy.rows[s]) for s in range(T)}
    assert len(run) <= 2
    assert len(variants.made) <= 2 + 1  # and the one that reuses everything, made at capture
    assert refreshes(unet)[0][0] == 0
