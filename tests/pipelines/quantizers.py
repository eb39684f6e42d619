"""Quantises small models with torchao, diffusers' GGUF layers, optimum-quanto and bitsandbytes."""

from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import plain
from tests.plain import denoised

Quantize = Callable[[nn.Module], object]


def linears(model: nn.Module, divisor: int = 1, outputs: int = 1) -> Iterator[tuple[str, Any]]:
    """Yield the linear layers whose numbers of inputs and of outputs these divide."""
    for path, module in list(model.named_modules()):
        if type(module) is nn.Linear and not (
            module.in_features % divisor or module.out_features % outputs
        ):
            yield path, module


def put(model: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, layer.eval())


def torchao(config: str) -> Quantize:
    def quantize(model: nn.Module) -> None:
        import torchao.quantization as ao

        ao.quantize_(
            model,
            getattr(ao, config)(),
            filter_fn=lambda module, _: type(module) is nn.Linear and module.in_features > 1,
        )

    return quantize


def gguf_bytes(weight: Tensor, kind: str) -> Any:
    """Return a weight as GGUF stores it: rows of bytes."""
    import gguf

    return gguf.quants.quantize(weight.detach().numpy(), gguf.GGMLQuantizationType[kind])


def gguf(kind: str) -> Quantize:
    """Quantise with the layers and parameters that diffusers loads GGUF files into."""

    def quantize(model: nn.Module) -> None:
        from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        quant_type = GGMLQuantizationType[kind]
        for path, module in linears(model, divisor=GGML_QUANT_SIZES[quant_type][0]):
            size, dtype = (module.in_features, module.out_features), module.weight.dtype
            layer = GGUFLinear(*size, module.bias is not None, compute_dtype=dtype)
            data = torch.from_numpy(gguf_bytes(module.weight.float(), kind))
            layer.weight, layer.bias = GGUFParameter(data, quant_type=quant_type), module.bias
            put(model, path, layer)

    return quantize


def write_gguf(model: nn.Module, file: Path, kind: str) -> None:
    """Write ``model`` as a GGUF file: linear weights quantised, one in bfloat16, others as is."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter

    divisor = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]
    paths = [path for path, _ in linears(model, divisor)]
    kinds = {f"{path}.weight": kind for path in paths} | {f"{paths[0]}.weight": "BF16"}
    writer = GGUFWriter(file, "flux")
    for name, tensor in model.state_dict().items():
        stored = kinds.get(name)
        data = gguf_bytes(tensor, stored) if stored else tensor.numpy()
        raw = GGMLQuantizationType[stored] if stored else None
        writer.add_tensor(name, data, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quanto(weights: str, activations: str | None = None) -> Quantize:
    def quantize(model: nn.Module) -> None:
        from optimum import quanto

        quanto.quantize(model, weights=weights, activations=activations)
        quanto.freeze(model)

    return quantize


def bitsandbytes(kind: str) -> Quantize:
    """Quantise as diffusers does on loading. Some CPUs need such numbers of inputs and outputs."""

    def quantize(model: nn.Module) -> None:
        import bitsandbytes as bnb

        for path, module in linears(model, divisor=64, outputs=32):
            size, data = (module.in_features, module.out_features), module.weight.detach().clone()
            bias = module.bias
            layer: Any
            if kind == "int8":
                layer = bnb.nn.Linear8bitLt(*size, bias is not None, has_fp16_weights=False)
                layer.weight = bnb.nn.Int8Params(data, False, False)
            else:
                dtype = module.weight.dtype
                layer = bnb.nn.Linear4bit(*size, bias is not None, dtype, quant_type=kind)
                layer.weight = bnb.nn.Params4bit(data, quant_type=kind, module=layer)
            layer.bias = bias
            put(model, path, layer.to("cpu"))

    return quantize


def case(name: str, quantize: Quantize, package: str, slow: bool) -> Any:
    """Return a case of a test, skipped where the package is missing."""
    missing = pytest.mark.skipif(find_spec(package) is None, reason=f"needs {package}")
    return pytest.param(quantize, id=name, marks=[missing, *([pytest.mark.slow] if slow else [])])


# The extra `dev` brings torchao and gguf, `quantized` the others: see `make quantized`.
INT8 = case("torchao-int8", torchao("Int8WeightOnlyConfig"), "torchao", slow=False)
DYNAMIC = case("torchao-w8a8", torchao("Int8DynamicActivationInt8WeightConfig"), "torchao", False)
FLOAT8 = case("torchao-float8", torchao("Float8WeightOnlyConfig"), "torchao", slow=False)
INTX = case("torchao-intx", torchao("IntxWeightOnlyConfig"), "torchao", slow=True)
GGUF_Q8 = case("gguf-q8", gguf("Q8_0"), "gguf", slow=False)
GGUF_Q4 = case("gguf-q4", gguf("Q4_0"), "gguf", slow=True)
GGUF_BF16 = case("gguf-bf16", gguf("BF16"), "gguf", slow=True)
QUANTO = [
    case(f"quanto-{kind}", quanto(kind), "optimum", slow=True)
    for kind in ("qint8", "qint4", "qint2", "qfloat8")
]
BITSANDBYTES = [
    case(f"bitsandbytes-{kind}", bitsandbytes(kind), "bitsandbytes", slow=True)
    for kind in ("nf4", "fp4")
]
# Most tests take one kind of each sort in CI: one that wraps tensors, one that has attributes.
KINDS = [INT8, DYNAMIC, FLOAT8, INTX, GGUF_Q8, GGUF_Q4, GGUF_BF16, *QUANTO, *BITSANDBYTES]


def rarely(kinds: Iterable[Any], keep: Iterable[Any] = (GGUF_Q8,)) -> list[Any]:
    """Return ``kinds`` as cases that are slow, except those in ``keep``."""
    kept = set(map(id, keep))
    slow = [pytest.mark.slow]
    return [
        k if id(k) in kept else pytest.param(*k.values, id=k.id, marks=[*k.marks, *slow])
        for k in kinds
    ]


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


def layers(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]
