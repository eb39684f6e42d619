"""Reports about ControlNets."""

from typing import Any

from torch import Tensor

import fxcache
from bench.pipelines.draw import same
from bench.pipelines.families import controlnet, flux, qwen_image
from bench.pipelines.parts import picture
from bench.pipelines.recipe import PipelineRecipe
from bench.reports.report import PublicReport
from bench.reports.requests import (
    EVERY_THIRD,
    Request,
    built,
    call,
    in_order,
    recipe_of,
    silent,
)

WASTED = (
    "The ControlNet itself runs at every step. In transformers, the blocks that are reused use its "
    "values of the last refresh."
)


def follows(recipe: PipelineRecipe, side: int, name: str = "control_image") -> list[str]:
    """Draw with one control picture, another one, and the first again."""
    drawings = [call(recipe, **{name: picture(side, seed=seed)}) for seed in (1, 6)]
    faults = in_order(built(recipe), [Request(drawings[n]) for n in (0, 1, 0)])
    pipe = built(recipe)()
    fxcache.optimize(pipe, EVERY_THIRD)
    if same(*(drawing(pipe) for drawing in drawings)):
        faults.append("another control picture changes nothing")
    return faults


def qwen_inpainting() -> list[str]:
    recipe = recipe_of(qwen_image.RECIPES, "QwenImageControlNetInpaintPipeline")
    return follows(recipe, qwen_image.SIDE)


def flux_union() -> list[str]:
    return follows(recipe_of(flux.RECIPES, "FluxControlNetPipeline"), flux.SIDE)


def stable_diffusion() -> list[str]:
    recipe = recipe_of(controlnet.RECIPES, "StableDiffusionControlNetPipeline")
    return follows(recipe, 32, "image")


def shared_by_two_pipelines() -> list[str]:
    """Draw with a pipeline, and with one with a ControlNet that shares its transformer."""
    plain, controlled = (
        recipe_of(flux.RECIPES, kind) for kind in ("FluxPipeline", "FluxControlNetPipeline")
    )

    def build() -> Any:
        pipe = silent(controlled.build())
        parts = {name: part for name, part in pipe.components.items() if name != "controlnet"}
        pipe.without = silent(type(plain.build())(**parts))
        return pipe

    def drawn(pipe: Any) -> list[Tensor]:
        return call(plain)(pipe.without)

    requests = [Request(call(controlled)), Request(drawn)] * 2
    faults = in_order(build, requests)

    def the_other(policy: fxcache.Policy) -> Any:
        return lambda pipe: fxcache.optimize(pipe.without, policy)

    return faults + in_order(build, requests, optimize=the_other)


REPORTS = (
    PublicReport(
        "vipshop/cache-dit",
        482,
        "Qwen-Image inpainting with a ControlNet: with the cache, the ControlNet has no effect.",
        qwen_inpainting,
        "Another control picture gives another picture, and the first one again the first bits.",
        WASTED,
    ),
    PublicReport(
        "chengzeyi/ParaAttention",
        39,
        "FLUX with a ControlNet: with First-Block Cache, results no longer follow the control "
        "picture.",
        flux_union,
        "Another control picture gives another picture, and the first one again the first bits.",
        WASTED,
    ),
    PublicReport(
        "horseee/DeepCache",
        4,
        "DeepCache with a ControlNet: not supported; a user tried it in vain.",
        stable_diffusion,
        "Stable Diffusion with a ControlNet: another control picture gives another picture, and "
        "the first one again the first bits.",
    ),
    PublicReport(
        "nunchux-ai/nunchaku",
        437,
        "A pipeline and one with a ControlNet share a transformer. With the cache on one or both: "
        "errors, or no gain.",
        shared_by_two_pipelines,
        "One of the two pipelines optimised, and both called in turn: each as in a new pipeline.",
    ),
)
