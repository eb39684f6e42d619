"""Tests a cache of eight bits a value: its error, its bytes, and options that exclude it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import fxcache
from fxcache.codecs.drift import DriftCorrection
from fxcache.codecs.quantized_rows import QuantizedRows, dims_of_row
from fxcache.runtime.feature_cache import FeatureCache
from tests import tiny
from tests.loops import refreshes, sample
from tests.plain import dit, dit_inputs
from tests.runtime.stored import store, stored

pytestmark = pytest.mark.usefixtures("shared_captures")

DTYPES = [torch.int8, torch.float8_e4m3fn]
SHAPES = [(2, 7, 16), (2, 5, 4, 6), (1, 3, 2, 4, 4), (3, 8)]
LEAST = 458_752  # 448 · 2¹⁰: half a step of the smallest float8_e4m3fn


def restored(value: Tensor, dtype: torch.dtype) -> Tensor:
    steps, scale = QuantizedRows(dtype).quantize(value)
    assert steps.dtype is dtype
    return steps.float() * scale


def bound(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the documented bound plus two roundings of float32."""
    absmax = value.abs().amax(dims_of_row(value.dim()), keepdim=True)
    if dtype is torch.int8:
        return absmax / 254 * (1 + 1e-5)
    return torch.maximum(value.abs() / 16, absmax / LEAST) * (1 + 1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.sampled_from(DTYPES),
    st.integers(0, 10**6),
    st.floats(-30, 30),
    st.floats(0, 8),
)
def test_the_error_is_within_the_documented_bound(shape, dtype, seed, magnitude, spread):
    """``spread`` is the range of a row's magnitudes in powers of two."""
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(shape, generator=generator) * 2.0**magnitude
    value *= 2.0 ** (spread * torch.randn(shape, generator=generator))
    assert ((restored(value, dtype) - value).abs() <= bound(value, dtype)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_zeros_and_of_nan_are_restored(dtype):
    value = torch.ones(4, 1, 3)
    value[0], value[1, 0, 1], value[2, 0, 1] = 0, torch.nan, torch.inf
    found = restored(value, dtype)
    assert torch.equal(found[0], value[0])
    assert not found[1:3].isfinite().all(2).any(), "what is broken must stay visible"
    assert torch.equal(found[3], value[3])


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_reuse_reads_the_restored_value_and_a_refresh_is_exact(dtype):
    model = fxcache.optimize(
        dit(), policy=fxcache.Explicit((0,)), cache=fxcache.CacheConfig(dtype=dtype)
    )
    plain, inputs = dit(), dit_inputs()
    t = torch.tensor(700.0)
    with fxcache.session(model):
        assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))
        found = model(timestep=t, **inputs)
    x = plain.embed(inputs["sample"]) + plain.position
    emb = plain.time(t.reshape(1, 1) / 1000)
    out = x
    for layer in plain.layers:
        out = layer(out, emb.expand(2, -1), inputs["text"])
    stream = x + restored(out - x, dtype)
    expected = plain.head(plain.norm(stream) * (1 + emb[:, None]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_are_reported(dtype):
    held = {}
    for kept_as in (None, dtype):
        unet = fxcache.optimize(tiny.small_unet(), cache=fxcache.CacheConfig(dtype=kept_as))
        sample(unet, 5, **tiny.inputs())
        held[kept_as] = fxcache.report(unet).cached_bytes
        batch, channels = 2, 16
        assert held[None] == batch * channels * 16 * 16 * 4
    assert held[dtype] == held[None] // 4 + batch * channels * 4  # and the scales


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_quantised_run_stays_close(dtype):
    expected = sample(fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3)), 9, **tiny.inputs())
    cache = fxcache.CacheConfig(dtype=dtype)
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3), cache=cache)
    found = sample(unet, 9, **tiny.inputs())
    error = (found - expected).norm() / expected.norm()
    assert 0 < error < (0.01 if dtype is torch.int8 else 0.05)
    assert refreshes(unet) == [[0, 3, 6]]


def test_buffers_keep_their_addresses_and_follow_the_shape():
    cache, kept_as = FeatureCache(), QuantizedRows(torch.int8)
    values = [torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.randn(1, 3, 4)]
    seen = []
    for step, value in enumerate(values):
        store(cache, value, step, kept_as, source=value.shape)
        parts = stored(cache)
        assert all(map(torch.equal, parts, kept_as.quantize(value)))
        assert cache.entries[0].age(step + 2) == 2
        seen.append([part.data_ptr() for part in parts])
    assert seen[0] == seen[1]


@pytest.mark.usefixtures("clean_dynamo")
def test_two_graphs_and_no_recompilation():
    counter = CompileCounterWithBackend("aot_eager")
    unet = fxcache.optimize(tiny.small_unet(), cache=fxcache.CacheConfig(dtype=torch.int8))
    compiled = torch.compile(unet, backend=counter, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        sample(compiled, 7, **tiny.inputs())
    assert counter.frame_count == 2


@pytest.mark.parametrize("wrong", ["int8", torch.int16, 8])
def test_other_dtypes_are_refused(wrong):
    with pytest.raises(fxcache.ConfigError, match="int8"):
        fxcache.optimize(tiny.small_unet(), cache=fxcache.CacheConfig(dtype=wrong))


@pytest.mark.parametrize("made", [torch.fft.fft, lambda value: value.argmax(-1)])
def test_complex_values_are_refused(made):
    class Inner(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return made(super().forward(x))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner(4, 4)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x * t + self.inner(x).real.sum()

    model = fxcache.optimize(
        Outer().eval(), cut="inner", cache=fxcache.CacheConfig(dtype=torch.int8)
    )
    with torch.no_grad(), pytest.raises(fxcache.CutError, match="cannot be quantised"):
        model(torch.randn(2, 3, 4), torch.tensor(1.0))


def test_options_that_need_differences_are_refused():
    unet = tiny.small_unet()
    with pytest.raises(fxcache.ConfigError, match="forecasts"):
        fxcache.optimize(
            unet,
            policy=fxcache.Uniform(3),
            forecast=fxcache.Taylor(1),
            cache=fxcache.CacheConfig(dtype=torch.int8),
        )
    plan = fxcache.Plan.of(unet, fxcache.Uniform(3), 0)
    plan = replace(plan, correction=DriftCorrection({"a.0": torch.zeros(3, 1, 2)}))
    with pytest.raises(fxcache.ConfigError, match="corrections"):
        fxcache.optimize(unet, plan=plan, cache=fxcache.CacheConfig(dtype=torch.int8))
    fxcache.optimize(unet, cache=fxcache.CacheConfig(dtype=torch.int8))
