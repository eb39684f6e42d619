"""Reports about adapters and quantised weights."""

from typing import Any

import torch
from torch import Tensor, nn

import fxcache
from bench.pipelines.families import flux
from bench.pipelines.parts import noise
from bench.reports.report import PublicReport
from bench.reports.requests import Request, built, call, in_order, recipe_of

RECIPE = recipe_of(flux.RECIPES, "FluxPipeline")
MAGNITUDES = fxcache.MagCache(ratios=(1.0,) + (0.999,) * 6, retention=0.0)


def lora(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return a LoRA of the attentions' projections, with a visible effect."""
    made = {}
    for number, (name, module) in enumerate(model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(("to_q", "to_v")):
            shapes = {"A": (2, module.in_features), "B": (module.out_features, 2)}
            for part, shape in shapes.items():
                key = f"transformer.{name}.lora_{part}.weight"
                made[key] = 0.3 * noise(*shape, seed=100 * seed + number)
    return made


def load(pipe: Any, seed: int = 1) -> None:
    pipe.load_lora_weights(lora(RECIPE.build().transformer, seed), adapter_name=f"lora{seed}")


def adapters_after_the_cache() -> list[str]:
    requests = [
        Request(call(RECIPE)),
        Request(call(RECIPE), load),
        Request(call(RECIPE), lambda pipe: pipe.set_adapters("lora1", 0.3)),
        Request(call(RECIPE), lambda pipe: load(pipe, 2)),
        Request(call(RECIPE), lambda pipe: pipe.unload_lora_weights()),
    ]
    return in_order(built(RECIPE), requests)


def quantize(pipe: Any) -> None:
    """Put the transformer's weights in diffusers' GGUF layers."""
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
    from gguf import GGMLQuantizationType, quants

    for path, module in list(pipe.transformer.named_modules()):
        if type(module) is nn.Linear and module.in_features % 32 == 0:
            weight = module.weight.detach().float().numpy()
            data = torch.from_numpy(quants.quantize(weight, GGMLQuantizationType.Q8_0))
            size = (module.in_features, module.out_features)
            layer: Any = GGUFLinear(*size, module.bias is not None, compute_dtype=torch.float32)
            layer.weight = GGUFParameter(data, quant_type=GGMLQuantizationType.Q8_0)
            layer.bias = module.bias
            parent, _, name = path.rpartition(".")
            setattr(pipe.transformer.get_submodule(parent), name, layer.eval())


def adapter_on_gguf() -> list[str]:
    """Draw with GGUF weights, then with a LoRA on them, by a policy that may reuse at once."""
    requests = [Request(call(RECIPE), quantize), Request(call(RECIPE), load)]
    return in_order(built(RECIPE), requests, (MAGNITUDES,))


def eight_bits(pipe: Any) -> None:
    import torchao.quantization as ao

    ao.quantize_(
        pipe.transformer,
        ao.Float8WeightOnlyConfig(),
        filter_fn=lambda module, _: type(module) is nn.Linear and module.in_features > 1,
    )


def reuses_in_eight_bits() -> list[str]:
    return in_order(built(RECIPE), [Request(call(RECIPE), eight_bits), Request(call(RECIPE))])


REPORTS = (
    PublicReport(
        "chengzeyi/Comfy-WaveSpeed",
        36,
        "Where does a LoRA belong, before or after First-Block Cache and the compiler? It must "
        "be loaded first.",
        adapters_after_the_cache,
        "FLUX: a LoRA loaded after `optimize` and a run, another strength, a second one, and all "
        "unloaded: each as if done before `optimize`.",
    ),
    PublicReport(
        "Zehong-Ma/ComfyUI-MagCache",
        5,
        "MagCache on a GGUF model with a LoRA: it reuses before anything is cached, and fails. "
        "MagCache after the LoRA works.",
        adapter_on_gguf,
        "FLUX with GGUF weights, then with a LoRA on them, both after `optimize`, by `MagCache` "
        "without a warm-up: each as in a new pipeline.",
    ),
    PublicReport(
        "ali-vilab/TeaCache",
        31,
        "TeaCache on FLUX with float8 weights: no speed-up.",
        reuses_in_eight_bits,
        "FLUX with float8 weights of torchao: every third call refreshes, and the others reuse.",
        "Quantised activations of optimum-quanto are refused.",
    ),
)
