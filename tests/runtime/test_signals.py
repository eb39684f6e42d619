"""Tests policies that observe signals: their values, their costs, and the guarantees."""

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch._dynamo.testing import CompileCounterWithBackend

import fxcache
from fxcache.policies import FirstBlock, Policy, TeaCache
from fxcache.rewrite.factory import VariantKey
from tests import tiny
from tests.engines import optimized_engine, variants_of
from tests.loops import refreshes, sample
from tests.plain import DiT, dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")

TIMES = torch.linspace(900, 100, 10)


@torch.no_grad()
def denoised(model: nn.Module, inputs: dict[str, Any], times: Tensor = TIMES) -> Tensor:
    given = dict(inputs)
    latent = given.pop("sample")
    for t in times:
        latent = latent - 0.1 * model(sample=latent, timestep=t, **given)
    return latent


def relative_l1(now: Tensor, then: Tensor) -> float:
    return float((now - then).abs().mean() / then.abs().mean())


@torch.no_grad()
def by_hand(
    policy: Any, inputs: dict[str, Any], model: DiT | None = None
) -> tuple[Tensor, list[int]]:
    """Run the plain DiT with a cache by hand, as TeaCache's and First-Block Cache's authors do."""
    model = model or dit()
    first, rest = model.layers[0], model.layers[1:]
    teacache = isinstance(policy, TeaCache)
    latent, text = inputs["sample"], inputs["text"]
    reference, residual, total, computed = None, None, 0.0, []
    for step, t in enumerate(TIMES):
        emb = model.time(t.reshape(-1, 1) / 1000).expand(latent.shape[0], -1)
        x = model.embed(latent) + model.position
        if teacache:
            shift, scale, *_ = first.modulation(emb)[:, None].chunk(6, -1)
            signal, start = first.norms[0](x) * (1 + scale) + shift, x
        else:
            start = first(x, emb, text)
            signal = start - x
        if reference is None:
            compute = True
        elif teacache:
            total += max(0.0, policy.estimate(relative_l1(signal, reference)))
            compute = total >= policy.threshold or step == len(TIMES) - 1
        else:
            compute = relative_l1(signal, reference) > policy.threshold
        if compute:
            end = start
            for layer in model.layers if teacache else rest:
                end = layer(end, emb, text)
            residual, total = end - start, 0.0
            computed.append(step)
        else:
            end = start + residual
        if teacache or compute:
            reference = signal
        latent = latent - 0.1 * model.head(model.norm(end) * (1 + emb[:, None]))
    return latent, computed


@pytest.mark.parametrize(
    "policy",
    [
        TeaCache(0.05, coefficients=(1.0, 0.0)),
        TeaCache(0.2, (2.0, 1.0, 0.01)),
        FirstBlock(0.05),
        FirstBlock(0.2),
    ],
)
def test_decisions_and_latents_equal_a_cache_by_hand(policy):
    model = fxcache.optimize(dit(), policy=policy)
    latent = denoised(model, dit_inputs())
    expected, computed = by_hand(policy, dit_inputs())
    assert refreshes(model) == [computed]
    assert 1 < len(computed) < len(TIMES), "a threshold that tells nothing"
    torch.testing.assert_close(latent, expected)


@pytest.mark.parametrize(
    "policy", [TeaCache(0.0, coefficients=(1.0, 0.0)), FirstBlock(0.0, max_reuses=0)]
)
@pytest.mark.parametrize("model", ["dit", "unet"])
def test_refreshing_always_equals_the_original_bit_for_bit(policy, model):
    if model == "dit":
        expected = denoised(dit(), dit_inputs())
        found = denoised(fxcache.optimize(dit(), policy=policy), dit_inputs())
    else:
        expected = sample(tiny.small_unet(), **tiny.inputs())
        found = sample(fxcache.optimize(tiny.small_unet(), policy=policy), **tiny.inputs())
    assert torch.equal(found, expected)


def test_the_prefix_ends_at_the_signal():
    model = fxcache.optimize(dit(), policy=FirstBlock(0.1), hoist=None)
    denoised(model, dit_inputs())
    variants = variants_of(model)
    assert set(variants.made) == {VariantKey(frozenset(), True), VariantKey(variants.all, True)}
    assert layers_in(variants.prefix().module) == {0}
    assert layers_in(variants.variant(frozenset(), continued=True).module) == {1, 2, 3}
    assert layers_in(variants.variant(variants.all, continued=True).module) == set()
    engine = optimized_engine(model)
    flops = {step.flops for step in engine.runs[0].steps}
    assert flops == {variants.plan.cut.full_flops, variants.plan.cut.reuse_flops}


def layers_in(module: fx.GraphModule) -> set[int]:
    """Return the blocks whose linear layers are in ``module``."""
    names = module.meta["weight_names"].values()
    return {int(n.split(".")[1]) for n in names if n.startswith("layers.") and "mlp" in n}


@torch.no_grad()
@pytest.mark.parametrize("threshold", [1.0, 1.5, 2.0])
def test_a_timestep_signal_is_precomputed(threshold):
    unet = tiny.small_unet()
    fxcache.optimize(unet, policy=TeaCache(threshold, coefficients=(1.0, 0.0)))
    sample(unet, 20, **tiny.inputs())
    variants = variants_of(unet)
    assert fxcache.report(unet).captures[0].signal == "timestep_embedding (before the run)"
    assert not any(kind.continued for kind in variants.made), "no prefix in the loop"
    engine = optimized_engine(unet)
    (run,) = engine.runs
    assert run.signals is not None
    scheduler = tiny.ddim()
    scheduler.set_timesteps(20)
    embedded = [unet.time_embedding(unet.time_proj(t[None])) for t in scheduler.timesteps]
    torch.testing.assert_close(run.signals[:, 0], torch.cat(embedded))
    total, computed = 0.0, [0]
    for step in range(1, 20):
        total += relative_l1(embedded[step], embedded[step - 1])
        if total >= threshold or step == 19:
            computed.append(step)
            total = 0.0
    assert refreshes(unet) == [computed]
    assert 2 < len(computed) < 20


def test_the_prefix_computes_the_signal_of_single_timesteps():
    unet = fxcache.optimize(tiny.small_unet(), policy=TeaCache(2.0, coefficients=(1.0, 0.0)))
    inputs = tiny.inputs()
    with torch.no_grad(), fxcache.session(unet, num_steps=5):
        for t in (900, 700, 500, 300, 100):
            unet(timestep=t, **inputs)
    assert any(kind.continued for v in optimized_engine(unet).captures.values() for kind in v.made)


@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.sweep(1)
@pytest.mark.parametrize("fullgraph", [False, True])
def test_three_graphs_no_break_no_recompilation(fullgraph):
    policy = FirstBlock(0.1)
    expected = denoised(fxcache.optimize(dit(), policy=policy), dit_inputs())
    counter = CompileCounterWithBackend("eager")
    model = fxcache.optimize(dit(), policy=policy)
    model.compile(backend=counter, fullgraph=fullgraph)
    torch._dynamo.utils.counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert torch.equal(denoised(model, dit_inputs()), expected)
        assert torch.equal(denoised(model, dit_inputs(seed=1)), denoised_alone(policy))
    assert counter.frame_count == 3
    assert not torch._dynamo.utils.counters["graph_break"]


def denoised_alone(policy: Policy) -> Tensor:
    return denoised(fxcache.optimize(dit(), policy=policy), dit_inputs(seed=1))


def test_requests_in_turns_keep_their_own_signals():
    policy = FirstBlock(0.1)
    model = fxcache.optimize(dit(), policy=policy)
    requests = [dit_inputs(seed=s) for s in (1, 2)]
    latents = [r["sample"] for r in requests]
    schedules = [TIMES.clone() for _ in requests]
    with torch.no_grad():
        for step in range(len(TIMES)):
            for i, request in enumerate(requests):
                t = schedules[i][step]
                latents[i] = latents[i] - 0.1 * model(latents[i], t, request["text"])
    for latent, seed in zip(latents, (1, 2), strict=True):
        alone = fxcache.optimize(dit(), policy=policy)
        assert torch.equal(latent, denoised(alone, dit_inputs(seed=seed)))


def test_a_second_run_does_not_read_the_first_runs_signal():
    model = fxcache.optimize(dit(), policy=TeaCache(0.1, coefficients=(1.0, 0.0)))
    inputs = dit_inputs()
    first = denoised(model, inputs, TIMES.clone())
    assert torch.equal(denoised(model, inputs, TIMES.clone()), first)
    assert refreshes(model)[0] == refreshes(model)[1]


def test_nan_refreshes():
    model = fxcache.optimize(dit(), policy=FirstBlock(1e9))
    inputs = dit_inputs()
    with torch.no_grad(), fxcache.session(model):
        for t in (900.0, 800.0, float("nan"), 700.0):
            model(timestep=torch.tensor(t), **inputs)
    assert refreshes(model)[-1] == [0, 2, 3]


class NoBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.deep, self.leave = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 4)

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        skip = self.enter(sample)
        return self.leave(torch.cat([self.deep(skip), skip], -1)) * timestep


def test_a_model_without_the_signal_is_refused():
    example = {"sample": torch.randn(1, 4), "timestep": torch.tensor(1.0)}
    with pytest.raises(fxcache.CutError, match="no first_block to observe"):
        fxcache.optimize(
            NoBlocks().eval(),
            policy=FirstBlock(),
            capture=fxcache.CaptureConfig(example_inputs=example),
        )


def test_a_cut_before_the_signal_is_refused():
    example = {**dit_inputs(), "timestep": torch.tensor(1.0)}
    with pytest.raises(fxcache.CutError, match="observes a value that is computed from it"):
        fxcache.optimize(
            dit(),
            policy=FirstBlock(),
            cut=("layers.0", "layers.0"),
            capture=fxcache.CaptureConfig(example_inputs=example),
        )


@torch.no_grad()
def test_a_variant_made_after_weights_were_replaced_reads_the_new_ones():
    """The timesteps of the second run are new tensors, so that continued variants are made then."""
    policy = TeaCache(2.0, coefficients=(1.0, 0.0), last=0)
    unet, plain = fxcache.optimize(tiny.small_unet(), policy=policy), tiny.small_unet()
    inputs = tiny.inputs()
    sample(unet, 5, **inputs)
    for model in (unet, plain):
        model.conv_in.weight = nn.Parameter(model.conv_in.weight * 1.5)
    with fxcache.session(unet):
        found = unet(timestep=torch.tensor(900), **inputs).sample
    assert any(kind.continued for kind in variants_of(unet).made)
    assert torch.equal(found, plain(timestep=900, **inputs).sample)
