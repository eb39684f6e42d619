"""Reports about caches beside offloading."""

from typing import Any

import accelerate
import torch
from accelerate.hooks import remove_hook_from_module
from diffusers.hooks import apply_group_offloading

from bench.pipelines.families import flux, qwen_image, stable_diffusion
from bench.reports.report import PublicReport
from bench.reports.requests import Request, built, call, in_order, recipe_of
from fxcache.runtime.denoisers import denoisers_of

CPU = torch.device("cpu")


def offload(pipe: Any) -> None:
    """Hook each denoiser as ``enable_model_cpu_offload`` does, which itself needs an accelerator.

    A pipeline does the same again at the end of each of its calls.
    """
    for module in denoisers_of(pipe).values():
        remove_hook_from_module(module, recurse=True)
        accelerate.cpu_offload_with_hook(module, execution_device=CPU)


def offload_blocks(pipe: Any) -> None:
    for module in denoisers_of(pipe).values():
        apply_group_offloading(module, CPU, CPU, offload_type="block_level", num_blocks_per_group=1)


def images_after_the_first() -> list[str]:
    recipe = recipe_of(stable_diffusion.RECIPES, "StableDiffusionPipeline")
    return in_order(built(recipe), [Request(call(recipe), offload)] * 3)


def offloaded_first() -> list[str]:
    recipe = recipe_of(flux.RECIPES, "FluxPipeline")

    def build() -> Any:
        pipe = built(recipe)()
        offload(pipe)
        return pipe

    return in_order(build, [Request(call(recipe))] * 2)


def block_by_block() -> list[str]:
    recipe = recipe_of(qwen_image.RECIPES, "QwenImageEditPipeline")
    return in_order(built(recipe), [Request(call(recipe), offload_blocks), Request(call(recipe))])


REPORTS = (
    PublicReport(
        "horseee/DeepCache",
        23,
        "Stable Diffusion with `enable_model_cpu_offload`: the first picture is right, all later "
        "ones are distorted, and made even faster.",
        images_after_the_first,
        "Three pictures, with the hooks set anew before each, as the pipeline does: each has the "
        "bits and the refreshes of a first one.",
    ),
    PublicReport(
        "vipshop/cache-dit",
        249,
        "The cache is enabled on FLUX after offloading: endless recursion in the hook.",
        offloaded_first,
        "FLUX, offloaded before `optimize`: two pictures, each as in a new pipeline.",
    ),
    PublicReport(
        "vllm-project/vllm-omni",
        1779,
        "Qwen-Image-Edit with offloading layer by layer and a cache that skips blocks: an error.",
        block_by_block,
        "Group offloading of blocks after `optimize`: two pictures, each as in a new pipeline.",
        "The prefetching of offloading is not kept: a graph loads each weight when it needs it.",
    ),
)
