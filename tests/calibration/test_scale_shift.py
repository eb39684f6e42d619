"""Tests the scale-shift adjustment: its computation, its training and its file."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import fxcache
from bench.denoisers import RECIPES
from bench.denoisers import tiny as tiny_denoiser
from fxcache.calibration import scale_shift
from fxcache.calibration.fingerprint import fingerprint
from fxcache.calibration.training import Learner, Options, prediction_error
from fxcache.codecs.scale_shift import ScaleShift
from fxcache.policies import BlockCaching
from fxcache.rewrite.variants import Variants
from fxcache.runtime.module import engine_of
from tests import plain, tiny
from tests.engines import variants_of
from tests.loops import sample
from tests.test_peers import denoise

pytestmark = pytest.mark.usefixtures("shared_captures")

T, HELD_OUT = 6, range(100, 103)


def attentions(unet: nn.Module) -> dict[str, Any]:
    return {n: m for n, m in unet.named_modules() if type(m).__name__ == "Transformer2DModel"}


def plan_for(model: nn.Module, blocks: Iterable[str], change: float = 0.2) -> fxcache.Plan:
    """Return a plan that computes every block at steps 0 and 3, unless a block changes more."""
    policy = BlockCaching(0.5, changes=dict.fromkeys(blocks, (change,) * T))
    return fxcache.Plan(policy, "auto", fingerprint(model))


def unet_plan(unet: nn.Module, change: float = 0.2) -> fxcache.Plan:
    return plan_for(unet, attentions(unet), change)


def rounds(unet: nn.Module) -> Callable[..., Tensor]:
    return lambda index=0: sample(unet, T, **tiny.inputs(seed=index))


def layers(unet: Any, fill: Callable[..., Tensor]) -> ScaleShift:
    weights = {}
    width = unet.time_embedding.linear_2.out_features
    for name, block in attentions(unet).items():
        doubled = 2 * block.proj_out.out_channels
        weights[f"{name}.0.weight"] = fill(doubled, width)
        weights[f"{name}.0.bias"] = fill(doubled)
    return ScaleShift(weights)


def random_layers(unet: nn.Module) -> ScaleShift:
    generator = torch.Generator().manual_seed(3)
    return layers(unet, lambda *size: 0.1 * torch.randn(*size, generator=generator))


def test_zeros_change_nothing():
    unet = tiny.small_unet()
    plan = unet_plan(unet)
    plain_run = rounds(fxcache.optimize(unet, plan=plan))(1)
    fxcache.restore(unet)
    fxcache.optimize(unet, plan=replace(plan, adjustment=layers(unet, torch.zeros)))
    assert torch.equal(rounds(unet)(1), plain_run)


def test_refresh_steps_equal_the_original():
    unet = tiny.small_unet()
    expected = rounds(unet)(1)
    plan = unet_plan(unet, change=9.0)
    fxcache.optimize(unet, plan=replace(plan, adjustment=random_layers(unet)))
    assert torch.equal(rounds(unet)(1), expected)


def test_an_adjustment_equals_hooks_by_hand():
    unet, by_hand = tiny.small_unet(), tiny.small_unet()
    adjustment = random_layers(unet)
    adjust_by_hand(by_hand, adjustment, refreshed=[0, 3])
    fxcache.optimize(unet, plan=replace(unet_plan(unet), adjustment=adjustment))
    torch.testing.assert_close(rounds(unet)(1), rounds(by_hand)(1), rtol=1e-4, atol=1e-4)


def adjust_by_hand(unet: Any, adjustment: ScaleShift, refreshed: list[int]) -> None:
    """Let attention blocks of ``unet`` add their last addition, scaled and shifted."""
    now: dict[str, Any] = {"step": -1}

    def embedded(_module: nn.Module, _inputs: Any, embedding: Tensor) -> None:
        now["step"] += 1
        now["embedding"] = embedding

    unet.time_embedding.register_forward_hook(embedded)
    for name, block in attentions(unet).items():
        layer = [adjustment.weights[f"{name}.0.{part}"] for part in ("weight", "bias")]
        block.forward = adjusting(block.forward, layer, now, refreshed)


def adjusting(
    forward: Callable[..., Any], layer: list[Tensor], now: dict[str, Any], refreshed: list[int]
) -> Callable[..., Any]:
    state: dict[str, Tensor] = {}

    def adjusted(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if now["step"] in refreshed:
            (result,) = forward(x, *args, **{**kwargs, "return_dict": False})
            state["held"] = result - x
            return (result,)
        scale, shift = nn.functional.linear(now["embedding"], *layer).chunk(2, dim=1)
        return (x + state["held"] * (1 + scale[:, :, None, None]) + shift[:, :, None, None],)

    return adjusted


@torch.no_grad()
def test_adjusted_tokens_have_channels_last():
    dit = plain.dit()
    names = [f"layers.{i}" for i in range(4)]
    plan = plan_for(dit, names)
    shift = {f"{n}.0.bias": torch.cat([torch.zeros(16), torch.arange(16.0)]) for n in names}
    scale = {f"{n}.0.weight": torch.zeros(32, 16) for n in names}
    fxcache.optimize(dit, plan=replace(plan, adjustment=ScaleShift({**scale, **shift})))
    given = {**plain.dit_inputs(), "timestep": torch.tensor(500.0)}
    with fxcache.session(dit, num_steps=T):
        dit(**given)
    variants = variants_of(dit)
    _, *cached = variants.full(*variants_inputs(given))
    moved = [value + torch.arange(16.0) for value in cached]
    (expected,) = bare(dit, plan).cached_skip(*variants_inputs(given), *moved)
    (found,) = variants.cached_skip(*variants_inputs(given), *cached)
    torch.testing.assert_close(found, expected)


def variants_inputs(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return given["sample"], given["timestep"], given["text"]


def bare(model: nn.Module, plan: fxcache.Plan) -> Variants:
    fxcache.restore(model)
    given = {**plain.dit_inputs(), "timestep": torch.tensor(500.0)}
    return variants_of(
        fxcache.optimize(model, plan=plan, capture=fxcache.CaptureConfig(example_inputs=given))
    )


@pytest.fixture(scope="module")
def trained() -> tuple[fxcache.Plan, fxcache.Plan]:
    """Return a plan before and after training."""
    unet = tiny.small_unet()
    plan = unet_plan(unet)
    options = Options(rounds=12, learning_rate=1e-2)
    return plan, scale_shift.train(unet, plan, rounds(unet), options)


def test_training_lowers_the_error_on_unseen_noise(trained):
    plan, learned = trained
    unet = tiny.small_unet()
    before = prediction_error(unet, plan, rounds(unet), HELD_OUT)
    after = prediction_error(unet, learned, rounds(unet), HELD_OUT)
    assert 0 < after < 0.85 * before


def test_only_the_adjustment_is_trained():
    unet = tiny.small_unet()
    plan, state = unet_plan(unet), {n: w.clone() for n, w in unet.state_dict().items()}
    before = dict(vars(unet))
    learned = scale_shift.train(unet, plan, rounds(unet), Options(rounds=1))
    assert vars(unet) == before
    assert unet.state_dict().keys() == state.keys()
    assert all(torch.equal(w, state[n]) for n, w in unet.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in unet.parameters())
    assert replace(learned, adjustment=None, settings=plan.settings) == plan
    assert learned.adjustment is not None
    assert any(w.any() for w in learned.adjustment.weights.values())
    assert not any(w.requires_grad for w in learned.adjustment.weights.values())
    optimized = fxcache.optimize(unet, plan=learned)
    rounds(optimized)()
    assert optimized.state_dict().keys() == state.keys()


def test_training_resumes_with_the_same_result(tmp_path):
    def learned(rounds_in_all: int, checkpoint: Path | None) -> fxcache.Plan:
        unet, options = tiny.small_unet(), Options(rounds=rounds_in_all, checkpoint=checkpoint)
        return scale_shift.train(unet, unet_plan(unet), rounds(unet), options)

    first = learned(1, tmp_path / "x.pt")
    resumed = learned(2, tmp_path / "x.pt")
    assert resumed == learned(2, None)
    assert resumed.adjustment != first.adjustment
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]
    with pytest.raises(fxcache.ConfigError, match="other parameters"):
        Learner({"a": nn.Parameter(torch.zeros(2))}, Options(checkpoint=tmp_path / "x.pt"))


def test_training_works_with_sampling_in_inference_mode():
    unet = tiny.small_unet()

    def sampled(index: int) -> Tensor:
        with torch.inference_mode():
            return sample(unet, T, **tiny.inputs(seed=index))

    losses: list[float] = []
    options = Options(rounds=2)
    scale_shift.train(unet, unet_plan(unet), sampled, options, lambda _, loss: losses.append(loss))
    assert len(losses) == 2


def test_a_plan_keeps_its_adjustment_in_a_file_beside_it(trained, tmp_path):
    _, learned = trained
    learned.save(tmp_path / "plan.json")
    assert fxcache.Plan.load(tmp_path / "plan.json") == learned
    unet = tiny.small_unet()
    expected = rounds(fxcache.optimize(unet, plan=learned))(7)
    fxcache.restore(unet)
    assert torch.equal(rounds(fxcache.optimize(unet, plan=tmp_path / "plan.json"))(7), expected)
    for damage in (lambda f: f.write_bytes(b"no tensors"), Path.unlink):
        damage(tmp_path / "plan.safetensors")
        with pytest.raises(fxcache.ModelFileError, match="weights cannot be read"):
            fxcache.Plan.load(tmp_path / "plan.json")


def test_an_adjustment_of_other_points_is_refused(trained):
    _, learned = trained
    weights = learned.adjustment.weights
    first = next(iter(weights))
    wrong = (
        {name: w for name, w in weights.items() if name != first},
        {**weights, "elsewhere.0.bias": torch.zeros(2)},
        {**weights, first: torch.zeros(3, 3)},
    )
    for held in wrong:
        unet = tiny.small_unet()
        fxcache.optimize(unet, plan=replace(learned, adjustment=ScaleShift(held)))
        with pytest.raises(fxcache.PlanError, match="other cache points"):
            rounds(unet)()


def test_blocks_without_a_common_embedding_are_refused():
    model = tiny_denoiser(RECIPES["DiTTransformer2DModel"])
    call = {"hidden_states": torch.randn(1, 4, 8, 8), "class_labels": torch.tensor([3])}

    def run(index: int = 0) -> None:
        with fxcache.session(model, num_steps=12):
            denoise(model, call)

    plan = plan_for(model, [f"transformer_blocks.{i}" for i in range(4)])
    with pytest.raises(fxcache.CutError, match="timestep embedding"):
        scale_shift.train(model, plan, run)
    assert engine_of(model) is None


def test_a_plan_that_reuses_nothing_cannot_be_trained():
    unet = tiny.small_unet()
    plan = unet_plan(unet, change=9.0)
    with pytest.raises(fxcache.ScheduleError, match="no step"):
        scale_shift.train(unet, plan, rounds(unet))
    assert engine_of(unet) is None


@pytest.mark.usefixtures("clean_dynamo")
def test_each_adjusted_variant_is_one_graph():
    counter = CompileCounterWithBackend("eager")
    unet = tiny.small_unet()
    plan = replace(unet_plan(unet), adjustment=random_layers(unet))
    fxcache.optimize(unet, plan=plan).compile(backend=counter, fullgraph=True, dynamic=False)
    rounds(unet)()
    assert counter.frame_count == 2


def test_the_flops_of_the_adjustment_are_counted():
    unet = tiny.small_unet()
    flops = []
    for adjustment in (None, random_layers(unet)):
        fxcache.optimize(unet, plan=replace(unet_plan(unet), adjustment=adjustment))
        rounds(unet)()
        variants = variants_of(unet)
        flops.append(variants.variant(variants.all).flops)
        fxcache.restore(unet)
    channels = [block.proj_out.out_channels for block in attentions(unet).values()]
    assert flops[1] - flops[0] == sum(2 * 2 * 2 * c * 64 for c in channels)
