"""Tests the learned router: blending, its gradients, and the decisions of training."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import fxcache
from bench.denoisers import RECIPES
from bench.denoisers import tiny as tiny_denoiser
from fxcache.calibration import learned_router
from fxcache.calibration.calibration import watched
from fxcache.calibration.learned_router import RouterOptions
from fxcache.calibration.measurement import Recording
from fxcache.calibration.training import prediction_error
from fxcache.policies import LearnedRouter
from fxcache.rewrite.factory import VariantKey
from fxcache.runtime.features.recording import RecordedStep
from fxcache.runtime.module import engine_of
from fxcache.runtime.settings import Settings
from tests import plain, tiny
from tests.engines import variants_of
from tests.loops import sample

pytestmark = pytest.mark.usefixtures("shared_captures")

T = 6
LAYERS = Settings("auto", Recording(like=LearnedRouter))


@torch.no_grad()
def denoise(model: nn.Module, steps: int = T, **inputs: Any) -> Tensor:
    """Return the latent after ``steps`` Euler steps. The timesteps are numbers."""
    latent = inputs.pop("sample")
    with fxcache.session(model, num_steps=steps):
        for step in range(steps):
            latent = latent - model(latent, torch.tensor(900.0 - 100 * step), **inputs) / steps
    return latent


def rounds(dit: nn.Module) -> Callable[..., Tensor]:
    return lambda index=0: denoise(dit, **plain.dit_inputs(seed=index))


def seen_in(model: nn.Module, run: Callable[[], object]) -> list[RecordedStep]:
    """Return the steps of an uncached run, with copies of their values."""
    found: list[RecordedStep] = []

    def note(seen: RecordedStep) -> None:
        copies = {k: tuple(t.clone() for t in v) for k, v in seen.values.items()}
        found.append(seen._replace(values=copies))

    with watched(model, LAYERS, note):
        run()
    return found


def flat(seen: RecordedStep) -> tuple[Tensor, ...]:
    return tuple(t for values in seen.values.values() for t in values)


def diffusers_dit() -> tuple[nn.Module, Callable[[], object]]:
    model = tiny_denoiser(RECIPES["DiTTransformer2DModel"])
    latent, label = torch.randn(2, 4, 8, 8), torch.tensor([3, 5])

    @torch.no_grad()
    def run() -> None:
        with fxcache.session(model, num_steps=2):
            for t in (500, 400):
                model(latent, timestep=torch.full((2,), t), class_labels=label)

    return model, run


def plain_dit() -> tuple[nn.Module, Callable[[], object]]:
    dit = plain.dit(2)
    return dit, lambda: denoise(dit, 2, **plain.dit_inputs())


def small_unet() -> tuple[nn.Module, Callable[[], object]]:
    unet = tiny.small_unet()
    return unet, lambda: sample(unet, 2, **tiny.inputs())


@torch.no_grad()
@pytest.mark.parametrize("made", [plain_dit, diffusers_dit, small_unet])
def test_a_blend_with_beta_one_is_full_and_with_zero_is_reuse(made):
    before, now = seen_in(*made())
    variants, groups = now.variants, len(now.values)
    blended = variants.blend.module(*now.user_inputs, *flat(before), torch.ones(groups))
    assert torch.equal(blended[0], now.output)
    blended = variants.blend.module(*now.user_inputs, *flat(before), torch.zeros(groups))
    reused = variants.cached_skip(*now.inputs, *flat(before))
    assert torch.equal(blended[0], reused[0])
    assert not torch.equal(blended[0], now.output)


def test_gradients_of_beta_agree_with_finite_differences():
    dit = plain.dit(2).double().requires_grad_(False)
    inputs = {k: v.double() for k, v in plain.dit_inputs().items()}
    before, now = seen_in(dit, lambda: denoise(dit, 2, **inputs))
    shares = torch.linspace(0.1, 0.9, len(now.values), dtype=torch.float64, requires_grad=True)

    def loss(shares: Tensor) -> Tensor:
        (output,) = now.variants.blend.module(*now.user_inputs, *flat(before), shares)
        return mse_loss(output, now.output)

    assert torch.autograd.gradcheck(loss, (shares,))


def trained(**options: Any) -> fxcache.Plan:
    dit = plain.dit()
    return learned_router.train(dit, rounds(dit), RouterOptions(**options))


def computed(plan: fxcache.Plan, first: int) -> list[float]:
    """Return the share of layers that steps ``first``, ``first`` + 2, … compute."""
    policy = plan.policy
    assert isinstance(policy, LearnedRouter)
    assert policy.points is not None
    return [len(row) / len(policy.points) for row in policy.computed()[first::2]]


def test_a_high_penalty_reuses_everything():
    plan = trained(rounds=8, learning_rate=0.5, penalty=10.0)
    assert computed(plan, 0) == [1.0] * 3
    assert computed(plan, 1) == [0.0] * 3


def test_no_penalty_computes_most_layers():
    plan = trained(rounds=8, learning_rate=0.5, penalty=0.0)
    assert min(computed(plan, 1)) > 0.5


def turned_round(scores: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """Give the most important layer the score of the least important one, at each step."""
    steps = []
    for column in zip(*scores.values(), strict=True):
        order = sorted(range(len(column)), key=column.__getitem__)
        swapped = dict(zip(order, reversed(order), strict=True))
        steps.append([column[swapped[i]] for i in range(len(column))])
    return dict(zip(scores, zip(*steps, strict=True), strict=True))


def test_the_routers_layers_have_less_error_than_others():
    dit = plain.dit()
    state = {n: w.clone() for n, w in dit.state_dict().items()}
    options = RouterOptions(rounds=24, learning_rate=0.2, penalty=3e-6)
    plan = learned_router.train(dit, rounds(dit), options)
    assert all(torch.equal(w, state[n]) for n, w in dit.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in dit.parameters())
    policy = plan.policy
    assert isinstance(policy, LearnedRouter)
    others = replace(plan, policy=replace(policy, scores=turned_round(policy.scores)))
    assert computed(others, 1) == computed(plan, 1)
    errors = [prediction_error(dit, p, rounds(dit), range(100, 103)) for p in (plan, others)]
    assert 0 < errors[0] < 0.8 * errors[1]
    fxcache.optimize(dit, plan=plan, hoist=None)
    rounds(dit)()
    variants = variants_of(dit)
    odd = frozenset(variants.all - policy.rows[1])
    assert VariantKey(odd) in variants.made


def test_training_is_deterministic_and_resumes(tmp_path):
    whole = trained(rounds=4)
    assert trained(rounds=4) == whole
    trained(rounds=2, checkpoint=tmp_path / "x.pt")
    assert trained(rounds=4, checkpoint=tmp_path / "x.pt") == whole
    whole.save(tmp_path / "plan.json")
    assert fxcache.Plan.load(tmp_path / "plan.json") == whole


def test_runs_of_other_lengths_are_refused():
    dit = plain.dit(2)

    def growing(_: int) -> Tensor:
        return denoise(dit, next(steps), **plain.dit_inputs())

    steps = count(3)
    with pytest.raises(fxcache.ScheduleError, match="more steps than the first run, which had 3"):
        learned_router.train(dit, growing)
    assert engine_of(dit) is None


def test_an_optimised_model_is_not_trained():
    dit = fxcache.optimize(plain.dit(2))
    with pytest.raises(fxcache.StateError, match="optimised already"):
        learned_router.train(dit, rounds(dit))
