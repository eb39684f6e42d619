"""Tests quantised models: weights of special classes, which graphs read as plain tensors."""

import copy
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

import fxcache
from bench.pipelines.parts import denoiser
from fxcache.calibration.fingerprint import fingerprint
from tests import plain
from tests.engines import optimized_engine, variants_of
from tests.pipelines.build import FLUX_PROMPT, around, flux, keeps, stable_diffusion
from tests.pipelines.quantizers import (
    BITSANDBYTES,
    FLOAT8,
    GGUF_BF16,
    GGUF_Q4,
    GGUF_Q8,
    INT8,
    KINDS,
    QUANTO,
    bitsandbytes,
    case,
    quanto,
    rarely,
    write_gguf,
)
from tests.pipelines.test_lora import weights
from tests.plain import denoised

WIDTH = 64  # of the small DiT: 4-bit layers of bitsandbytes need it
EVERY, THIRD = fxcache.Uniform(1), fxcache.Uniform(3)

every_kind = pytest.mark.parametrize("quantize", KINDS)
most_kinds = pytest.mark.parametrize("quantize", rarely(KINDS))


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "WIDTH", WIDTH)


def dit() -> nn.Module:
    return plain.dit(2)


def quantized(quantize: Any, scale: float = 1.0) -> nn.Module:
    """Return a quantised DiT that has been called once: some layers convert their weights then."""
    model = dit()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    full = denoised(model)
    quantize(model)
    assert not torch.equal(denoised(model), full)
    return model


def plain_tensors(weight: Any) -> Iterator[Tensor]:
    """The tensors that a wrapper consists of; the tensor itself if it is none."""
    if not hasattr(weight, "__tensor_flatten__"):
        yield weight
        return
    for name in weight.__tensor_flatten__()[0]:
        yield from plain_tensors(getattr(weight, name))


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


def layers(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


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


@most_kinds
def test_a_model_quantised_between_runs(quantize):
    expected = denoised(quantized(quantize))
    model = fxcache.optimize(dit(), EVERY)
    before = denoised(model)
    give_layers(model, quantized(quantize))
    assert torch.equal(denoised(model), expected)
    give_layers(model, dit())
    assert torch.equal(denoised(model), before)


def give_layers(model: nn.Module, donor: nn.Module) -> None:
    """Replace the linear layers of ``model`` by those of ``donor``."""
    for path, module in dit().named_modules():
        if isinstance(module, nn.Linear):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, donor.get_submodule(path))


@pytest.mark.parametrize("quantize", rarely([INT8, GGUF_Q8], keep=[INT8]))
def test_a_model_quantised_in_place_between_runs(quantize):
    expected = denoised(quantized(quantize))
    model = fxcache.optimize(dit(), EVERY)
    denoised(model)
    quantize(model)
    assert torch.equal(denoised(model), expected)


@pytest.mark.parametrize("quantize", rarely(KINDS, keep=[INT8]))
def test_weights_replaced_by_others_of_the_same_kind(quantize):
    donor = quantized(quantize, scale=1.5)
    expected = denoised(donor)
    model = fxcache.optimize(quantized(quantize), EVERY)
    denoised(model)
    for module, other in zip(model.modules(), donor.modules(), strict=True):
        for name, parameter in other._parameters.items():
            module._parameters[name] = parameter
    assert torch.equal(denoised(model), expected)


def test_another_kind_of_the_same_shape_and_dtype():
    expected = denoised(quantized(*FLOAT8.values))
    model = fxcache.optimize(quantized(*INT8.values), EVERY)
    denoised(model)
    donor = quantized(*FLOAT8.values)
    for module, other in zip(model.modules(), donor.modules(), strict=True):
        module._parameters.update(other._parameters)
    assert torch.equal(denoised(model), expected)


@pytest.mark.parametrize("quantize", rarely([k for k in KINDS if k.id != "gguf-bf16"], [FLOAT8]))
def test_scales_written_in_place(quantize):
    model = fxcache.optimize(quantized(quantize), EVERY)
    before = denoised(model)
    with torch.no_grad():
        for parameter in list(model.parameters()):
            for tensor in plain_tensors(parameter):
                if tensor.dtype is torch.float32:
                    tensor.mul_(1.25)
    after = denoised(model)
    assert not torch.equal(after, before)
    fxcache.restore(model)
    assert torch.equal(denoised(model), after)


@pytest.mark.parametrize("quantize", [GGUF_Q8, *BITSANDBYTES])
def test_data_assigned_between_runs(quantize):
    model = fxcache.optimize(quantized(quantize), EVERY)
    before = denoised(model)
    for layer in layers(model):
        if type(layer.weight) is not nn.Parameter:
            layer.weight.data = layer.weight.data.flip(0).clone()
    after = denoised(model)
    assert not torch.equal(after, before)
    fxcache.restore(model)
    assert torch.equal(denoised(model), after)


# diffusers cannot make deep copies of GGUF weights, nor optimum-quanto of its own.
DEEP = [kind for kind in KINDS if not kind.id.startswith(("gguf", "quanto"))]


@pytest.mark.parametrize(
    ("duplicate", "quantize"),
    [
        pytest.param(
            duplicate, *kind.values, id=f"{duplicate.__name__}-{kind.id}", marks=kind.marks
        )
        for duplicate, kinds in (
            (copy.deepcopy, rarely(DEEP, keep=[FLOAT8])),
            (copy.copy, rarely(KINDS, keep=[])),
        )
        for kind in kinds
    ],
)
def test_a_copy(duplicate, quantize):
    model = quantized(quantize)
    expected = denoised(model)
    other = duplicate(fxcache.optimize(model, EVERY))
    assert torch.equal(denoised(other), expected)
    assert torch.equal(denoised(model), expected)
    fxcache.restore(other)
    assert torch.equal(denoised(other), expected)


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


OF_ATEN = {"torchao-int8", "torchao-float8", "gguf-q8", "gguf-q4", "gguf-bf16"}
IN_ARTIFACTS = [kind for kind in KINDS if kind.id in OF_ATEN]
NOT_IN_ARTIFACTS = [kind for kind in KINDS if kind.id not in OF_ATEN]


@pytest.mark.parametrize("quantize", rarely(IN_ARTIFACTS, keep=[FLOAT8]))
def test_an_artifact(quantize, tmp_path):
    model = fxcache.optimize(quantized(quantize), THIRD)
    expected = denoised(model)
    loaded = fxcache.load(fxcache.export(model, tmp_path / "whole"))
    assert torch.equal(denoised(loaded), expected)
    whole = sum(file.stat().st_size for file in (tmp_path / "whole").glob("*.safetensors"))
    full = sum(parameter.nbytes for parameter in dit().parameters())
    assert whole < 0.4 * full or quantize is GGUF_BF16.values[0]
    if quantize is GGUF_Q4.values[0]:
        return  # its layers make constants, which no state dict has
    fxcache.export(model, tmp_path / "graphs", weights=False)
    loaded = fxcache.load(tmp_path / "graphs", weights=model.state_dict())
    assert torch.equal(denoised(loaded), expected)


@pytest.mark.parametrize("quantize", rarely(NOT_IN_ARTIFACTS, keep=[]))
def test_operators_that_artifacts_lack_are_refused(quantize, tmp_path):
    model = fxcache.optimize(quantized(quantize), THIRD)
    denoised(model)
    with pytest.raises(fxcache.ArtifactError, match=r"the operator (torchao|quanto|bitsandbytes)"):
        fxcache.export(model, tmp_path / "artifact")


@most_kinds
def test_a_fingerprint_changes_nothing(quantize):
    model = quantized(quantize)
    expected = denoised(model)
    found = fingerprint(model)
    assert not found.differences(fingerprint(quantized(quantize)))
    assert found.differences(fingerprint(dit()))
    assert found.differences(fingerprint(quantized(quantize, scale=1.5)))
    assert torch.equal(denoised(model), expected)


ACTIVATIONS = case("quanto", quanto("qint8", "qint8"), "optimum", slow=True)
EIGHT_BITS = case("bitsandbytes", bitsandbytes("int8"), "bitsandbytes", slow=True)


@pytest.mark.parametrize(
    ("quantize", "remedy"),
    [
        pytest.param(*kind.values, remedy, id=kind.id, marks=kind.marks)
        for kind, remedy in (
            (ACTIVATIONS, "quantise the weights alone"),
            (EIGHT_BITS, "quantise to 4 bits"),
        )
    ],
)
def test_what_no_graph_can_express_is_refused(quantize, remedy):
    model, draw, _ = flux()
    quantize(model)
    draw()
    fxcache.optimize(model, EVERY)
    with pytest.raises(fxcache.CaptureError, match=remedy):
        draw()


@pytest.mark.slow
def test_layers_that_convert_their_weights_in_a_call_of_fxcache_are_refused():
    bnb = pytest.importorskip("bitsandbytes")
    if not bnb.functional.has_avx512bf16():
        pytest.skip("this CPU converts no weights")
    model = fxcache.optimize(dit(), EVERY)
    bitsandbytes("nf4")(model)
    with pytest.raises(fxcache.CaptureError, match="call the model once without fxcache"):
        denoised(model)


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
