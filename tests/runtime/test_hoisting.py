"""Tests hoisting: equal results from values that are computed once a run or once a schedule."""

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.flop_counter import FlopCounterMode

import fxcache
from fxcache.analysis.hoisting import HoistLevel
from fxcache.rewrite.variants import Variants
from tests import tiny
from tests.engines import variants_of
from tests.loops import guided_sample, refreshes, sample
from tests.plain import denoised, dit, dit_inputs
from tests.runtime.hoisted import (
    ALWAYS,
    SCHEDULE,
    Small,
    assert_equal,
    both,
    captured,
    levels,
    spent,
)

pytestmark = pytest.mark.usefixtures("shared_captures")


POLICIES = [
    ALWAYS,
    fxcache.Uniform(3),
    fxcache.TaylorSeer(3, order=1, first=1),
    fxcache.TeaCache(1.0, coefficients=(1.0, 0.0)),
    fxcache.FirstBlock(0.3),
    fxcache.FasterCache(2),
]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.to_dict()["policy"])
def test_hoisting_once_is_bit_for_bit_equal(policy):
    if policy.observes:
        expected, found, model = both(dit, denoised, policy=policy)
    else:
        expected, found, model = both(
            tiny.small_unet, lambda m: sample(m, 7, **tiny.inputs()), policy=policy
        )
    assert torch.equal(found, expected)
    assert levels(model) == {HoistLevel.PER_RUN}
    if isinstance(policy, fxcache.FirstBlock):
        read = captured(model)[0].prefix(HoistLevel.PER_RUN).module.meta["weight_names"].values()
        assert not [name for name in read if "key_value" in name]
    if policy == ALWAYS:
        assert torch.equal(found, sample(tiny.small_unet(), 7, **tiny.inputs()))


@pytest.mark.parametrize("make", [tiny.xl_unet, tiny.unet])
def test_text_keys_and_values_are_computed_once(make):
    def measured(model: nn.Module) -> int:
        counter = FlopCounterMode(display=False)
        with counter:
            sample(model, 5, **inputs)
        return counter.get_total_flops()

    inputs = tiny.inputs()
    if make is tiny.xl_unet:
        inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"].repeat(1, 1, 2)
        added = {"text_embeds": torch.ones(2, tiny.TEXT_WIDTH), "time_ids": torch.ones(2, 6)}
        inputs["added_cond_kwargs"] = added
    example = {**inputs, "timestep": torch.tensor(1)}
    plain = fxcache.optimize(
        make(), policy=ALWAYS, hoist=None, capture=fxcache.CaptureConfig(example_inputs=example)
    )
    hoisted = fxcache.optimize(
        make(), policy=ALWAYS, hoist="once", capture=fxcache.CaptureConfig(example_inputs=example)
    )
    saved = measured(plain) - measured(hoisted)
    variants = variants_of(hoisted)
    once = [n.meta["nn_module_stack"] for n in variants.hoisted.per_run]
    paths = [next(reversed(list(stack.values())))[0] for stack in once]
    texts = [path for path in paths if path.endswith(("attn2.to_k", "attn2.to_v"))]
    assert len(texts) == sum(
        name.endswith(("attn2.to_k", "attn2.to_v")) for name, _ in hoisted.named_modules()
    )
    assert saved == spent(plain) - spent(hoisted) == 4 * variants.prologue_flops > 0


def test_a_table_is_equal_up_to_rounding():
    expected, found, model = both(dit, denoised, hoist="table")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert levels(model) == {HoistLevel.PER_STEP}


def test_a_table_in_double_precision_is_equal():
    def run(model: nn.Module) -> Tensor:
        return denoised(model.double(), **{k: v.double() for k, v in dit_inputs().items()})

    expected, found, _ = both(dit, run, hoist="table", policy=fxcache.Uniform(2))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    "observing", [fxcache.TeaCache(1.0, coefficients=(1.0, 0.0)), fxcache.FirstBlock(0.3)]
)
def test_a_table_works_with_observing_policies(observing):
    expected, found, model = both(dit, denoised, hoist="table", policy=observing)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert levels(model) == {HoistLevel.PER_STEP}


def test_guidance_at_half_the_batch_is_hoisted():
    cache = fxcache.GuidanceCache(interval=3, start=0.2)
    expected, found, model = both(tiny.small_unet, guided_sample, guidance=cache)
    assert torch.equal(found, expected)
    assert [levels_of(variants) for variants in captured(model)] == [{HoistLevel.PER_RUN}] * 2


def levels_of(variants: Variants) -> set[HoistLevel]:
    return {key.hoisted for key in variants.made if key.hoisted}


@pytest.mark.sweep(1)
@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("hoist", ["once", "table"])
def test_two_graphs_and_no_recompilation(hoist, offload):
    counter, cache = CompileCounterWithBackend("aot_eager"), fxcache.CacheConfig(offload=offload)
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3), hoist=hoist, cache=cache)
    compiled = torch.compile(unet, backend=counter, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in (0, 1):
            sample(compiled, 5, **tiny.inputs(seed=seed))
    assert counter.frame_count == 2
    assert refreshes(unet) == [[0, 3]] * 2


def test_weights_that_no_step_reads_any_more_are_reported():
    bytes_read = {}
    for hoist in (None, "once", "table"):
        model = fxcache.optimize(dit(), hoist=hoist)
        denoised(model)
        report = fxcache.report(model)
        (capture,) = report.captures
        bytes_read[hoist] = capture.weight_bytes["refresh"]
        whole = sum(p.nbytes for p in dit().parameters())
        assert capture.weight_bytes["refresh"] + capture.hoisted_weight_bytes == whole
        assert (report.hoisted_bytes > 0) == bool(hoist)
        assert ("read once a run" in str(report)) == bool(hoist)
    layers = dit().layers
    texts = sum(p.nbytes for layer in layers for p in layer.key_value.parameters())
    modulations = sum(p.nbytes for layer in layers for p in layer.modulation.parameters())
    timesteps = sum(p.nbytes for p in dit().time.parameters())
    assert bytes_read[None] - bytes_read["once"] == texts
    assert bytes_read["once"] - bytes_read["table"] == modulations + timesteps


@pytest.mark.parametrize("wrong", [True, "always", 1])
def test_wrong_values_of_hoist_are_refused(wrong):
    with pytest.raises(fxcache.ConfigError, match="hoist"):
        fxcache.optimize(dit(), hoist=wrong)


class Noisy(Small):
    def read(self, text: Tensor) -> Tensor:
        return super().read(text + torch.randn_like(text))


@pytest.mark.parametrize("hoist", ["once", "table"])
def test_random_values_are_not_hoisted(hoist):
    model = fxcache.optimize(Noisy().eval(), hoist=hoist, policy=ALWAYS)
    assert_equal(model, Noisy().eval(), SCHEDULE, atol=1e-6)
