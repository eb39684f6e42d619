"""Tests quantised models: weights of special classes, which graphs read as plain tensors."""

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

import fxcache
from bench.pipelines.parts import denoiser
from tests.engines import optimized_engine, variants_of
from tests.pipelines.build import FLUX_PROMPT, around, flux, keeps, stable_diffusion
from tests.pipelines.quantizers import (
    FLOAT8,
    GGUF_Q8,
    INT8,
    KINDS,
    QUANTO,
    bitsandbytes,
    case,
    dit,
    layers,
    quantized,
    quanto,
    rarely,
    write_gguf,
)
from tests.pipelines.test_lora import weights
from tests.plain import denoised

EVERY, THIRD = fxcache.Uniform(1), fxcache.Uniform(3)

pytestmark = pytest.mark.usefixtures("wide_dit")
every_kind = pytest.mark.parametrize("quantize", KINDS)
most_kinds = pytest.mark.parametrize("quantize", rarely(KINDS))


PIPELINES = [
    pytest.param(made, *kind.values, id=f"{made.__name__}-{kind.id}", marks=kind.marks)
    for made, kept in ((stable_diffusion, [INT8]), (flux, []))
    for kind in rarely(KINDS, keep=kept)
]


@pytest.mark.parametrize(("made", "quantize"), PIPELINES)
def test_a_pipeline(made, quantize):
    model, draw, _ = made()
    full = draw()
    quantize(model)
    assert not torch.equal(draw(), full)
    keeps(draw, model)


def test_a_gguf_file(tmp_path):
    pytest.importorskip("gguf")
    model, _, _ = flux()
    write_gguf(model, tmp_path / "model.gguf", "Q8_0")
    model.save_config(tmp_path)
    loaded = diffusers.FluxTransformer2DModel.from_single_file(
        str(tmp_path / "model.gguf"),
        config=str(tmp_path),
        quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=torch.bfloat16),
        torch_dtype=torch.bfloat16,
    )
    assert any(type(p).__name__ == "GGUFParameter" for p in loaded.parameters())
    _, draw, _ = around(loaded, diffusers.FluxPipeline, in_bfloat16(FLUX_PROMPT))
    keeps(draw, loaded)


def in_bfloat16(options: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v.bfloat16() if isinstance(v, Tensor) and v.is_floating_point() else v
        for k, v in options.items()
    }


@every_kind
def test_each_call_is_exact_and_cached_values_are_plain(quantize):
    model = quantized(quantize)
    expected = denoised(model)
    fxcache.optimize(model, EVERY)
    assert torch.equal(denoised(model), expected)
    fxcache.optimize(model, THIRD)
    first = denoised(model)
    assert torch.equal(denoised(model), first)
    assert not torch.equal(first, expected)
    buffers = cached(model)
    assert {(type(b), b.dtype) for b in buffers} == {(Tensor, torch.float32)}
    assert fxcache.report(model).cached_bytes == sum(b.numel() * 4 for b in buffers)
    fxcache.restore(model)
    assert torch.equal(denoised(model), expected)


def cached(model: nn.Module) -> list[Tensor]:
    return [
        buffer
        for trajectory in optimized_engine(model).store.trajectories
        for entry in trajectory.cache.entries.values()
        for buffer in entry.buffers
    ]


BYTES_OF_A_ROW = [  # of so many numbers; None if the layer is not quantised
    (FLOAT8, lambda n: n + 4 if n > 1 else None),  # a scale for each row
    (GGUF_Q8, lambda n: n // 32 * 34 if n % 32 == 0 else None),  # a half scale for 32 numbers
    (QUANTO[0], lambda n: n + 4),
    (QUANTO[1], lambda n: n / 2 + 4 + 4),  # a scale and a shift
]


@pytest.mark.parametrize(
    ("quantize", "row"),
    [pytest.param(*kind.values, row, id=kind.id, marks=kind.marks) for kind, row in BYTES_OF_A_ROW],
)
def test_the_report_counts_quantised_bytes(quantize, row):
    saved = sum(
        layer.out_features * (layer.in_features * 4 - row(layer.in_features))
        for layer in layers(dit())
        if row(layer.in_features) is not None
    )
    model, full = quantized(quantize), dit()
    for each in (model, full):
        fxcache.optimize(each, EVERY, hoist=None)
        denoised(each)
    (before, after) = (fxcache.report(m).captures[0].weight_bytes["refresh"] for m in (full, model))
    assert after == before - saved
    assert all(type(w) in (Tensor, nn.Parameter) for w in variants_of(model).weights.values())


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
@most_kinds
def test_two_compiled_graphs(quantize, backend):
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    model = fxcache.optimize(quantized(quantize), THIRD)
    expected = denoised(model)
    counter = CompileCounterWithBackend(backend)
    model.compile(backend=counter, fullgraph=True)
    assert torch.equal(denoised(model), expected)
    assert torch.equal(denoised(model), expected)
    assert counter.frame_count == 2


@most_kinds
def test_hoisted_and_offloaded(quantize):
    model = quantized(quantize)
    expected = denoised(model)
    fxcache.optimize(model, EVERY, hoist="table", cache=fxcache.CacheConfig(offload=True))
    torch.testing.assert_close(denoised(model), expected)


ACTIVATIONS = case("quanto", quanto("qint8", "qint8"), "optimum", slow=True)
EIGHT_BITS = case("bitsandbytes", bitsandbytes("int8"), "bitsandbytes", slow=True)


@pytest.mark.parametrize("quantize", [ACTIVATIONS])
def test_what_no_graph_can_express_is_refused(quantize):
    model, draw, _ = flux()
    quantize(model)
    draw()
    fxcache.optimize(model, EVERY)
    with pytest.raises(fxcache.CaptureError, match="quantise the weights alone"):
        draw()


AS_THEY_ARE = "torch.export cannot trace some submodules, which graphs call as they are"


@pytest.mark.filterwarnings(f"ignore:{AS_THEY_ARE}:fxcache.FxcacheWarning")
@pytest.mark.parametrize("quantize", [EIGHT_BITS])
def test_layers_that_assign_their_weights_are_called_as_they_are(quantize):
    model, draw, _ = flux()
    quantize(model)
    keeps(draw, model)
    fxcache.optimize(model, THIRD)
    with pytest.warns(fxcache.FxcacheWarning, match=rf"{AS_THEY_ARE}: \d+ × Linear8bitLt"):
        draw()


@pytest.mark.slow
def test_layers_that_convert_their_weights_in_the_first_call_are_called_as_they_are():
    bnb = pytest.importorskip("bitsandbytes")
    if not bnb.functional.has_avx512bf16():
        pytest.skip("this CPU converts no weights")
    plain, model = dit(), fxcache.optimize(dit(), EVERY)
    for each in (plain, model):
        bitsandbytes("nf4")(each)
    expected = denoised(plain)
    with pytest.warns(fxcache.FxcacheWarning, match=rf"{AS_THEY_ARE}: \d+ × Linear4bit"):
        assert torch.equal(denoised(model), expected)
    assert torch.equal(denoised(model), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Already found a .peft_config.:UserWarning",
    "ignore:TorchaoLoraLinear was instantiated:UserWarning",
)
@pytest.mark.parametrize("quantize", [INT8, GGUF_Q8, FLOAT8])
def test_a_lora(quantize):
    model, draw, pipe = flux()
    quantize(model)
    plain = draw()
    lora = weights(denoiser("FluxTransformer2DModel", guidance_embeds=True), "transformer")
    pipe.load_lora_weights(lora, adapter_name="one")
    assert not torch.equal(draw(), plain)
    keeps(draw, model)
