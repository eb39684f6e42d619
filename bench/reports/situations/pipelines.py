"""Reports about pipelines that a cache did not expect."""

from typing import Any

import fxcache
from bench.pipelines.draw import same
from bench.pipelines.families import flux, flux2, qwen_image, wan
from bench.pipelines.parts import assembled, denoiser
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import flow_unipc, wan_vae
from bench.reports.report import PublicReport
from bench.reports.requests import EVERY_THIRD, Request, built, call, counts, in_order, recipe_of


def timestep_for_each_token() -> Any:
    return assembled(
        "WanImageToVideoPipeline",
        transformer=denoiser("WanTransformer3DModel"),
        scheduler=flow_unipc(),
        vae=wan_vae(),
        expand_timesteps=True,
    )


def image_to_video() -> list[str]:
    kind = "WanImageToVideoPipeline"
    recipe = PipelineRecipe(kind, timestep_for_each_token, wan.image_to_video)
    return in_order(built(recipe), [Request(call(recipe))] * 2)


def variants_of_flux() -> list[str]:
    faults = []
    for kind in ("FluxImg2ImgPipeline", "FluxInpaintPipeline", "FluxKontextPipeline"):
        recipe = recipe_of(flux.RECIPES, kind)
        found = in_order(built(recipe), [Request(call(recipe))] * 2)
        faults += [f"{kind}: {fault}" for fault in found]
    return faults


def switched_on_after_a_run_without() -> list[str]:
    """Run without, with, without and with fxcache."""
    recipe = recipe_of(flux.RECIPES, "FluxPipeline")
    pipe, drawing = built(recipe)(), call(recipe)
    before = drawing(pipe)
    fxcache.optimize(pipe, EVERY_THIRD)
    first = drawing(pipe)
    fxcache.restore(pipe)
    between = drawing(pipe)
    fxcache.optimize(pipe, EVERY_THIRD)
    second = drawing(pipe)
    faults = []
    if not same(before, between):
        faults.append("the run after restore differs from the one before optimize")
    if same(first, before):
        faults.append("nothing was reused")
    if not same(first, second):
        faults.append("the second run with fxcache differs from the first")
    return faults


def left_out_of_the_workflow() -> list[str]:
    """Run with fxcache, then without: the pipeline is as it was."""
    recipe = recipe_of(flux2.RECIPES, "Flux2KleinPipeline")
    pipe, drawing = built(recipe)(), call(recipe)
    classes = [type(part) for part in (pipe, pipe.transformer)]
    plain = drawing(pipe)
    fxcache.optimize(pipe, EVERY_THIRD)
    cached = drawing(pipe)
    fxcache.restore(pipe)
    faults = [] if same(drawing(pipe), plain) else ["the run after restore differs"]
    if [type(part) for part in (pipe, pipe.transformer)] != classes:
        faults.append("restore left another class")
    if same(cached, plain):
        faults.append("nothing was reused")
    return faults


def few_blocks_and_steps() -> list[str]:
    """FLUX.2 klein with two and two blocks, and four steps without guidance."""
    recipe = recipe_of(flux2.RECIPES, "Flux2KleinPipeline")
    drawing = call(recipe, num_inference_steps=4, guidance_scale=1.0)
    faults = in_order(built(recipe), [Request(drawing)] * 2, (fxcache.ProtectedEnds(),))
    pipe = built(recipe)()
    fxcache.optimize(pipe)
    drawing(pipe)
    if counts(pipe) != {"transformer": (3, 4)}:
        faults.append(f"of four steps, the default policy refreshed {counts(pipe)}")
    return faults


def edited_with_zero_condition() -> list[str]:
    recipe = recipe_of(qwen_image.RECIPES, "QwenImageEditPlusPipeline")

    def build() -> Any:
        parts = qwen_image.edited(6)
        return qwen_image.qwen(recipe.kind, parts, {"zero_cond_t": True})

    changed = PipelineRecipe(recipe.kind, build, recipe.call, recipe.steps)
    return in_order(built(changed), [Request(call(changed))] * 2)


REPORTS = (
    PublicReport(
        "huggingface/diffusers",
        12012,
        "First-Block Cache on Wan 2.2 TI2V-5B, image to video: an error, for the pipeline sets no "
        "cache context.",
        image_to_video,
        "Image to video with a timestep for each token: twice the same, and every third call of "
        "each half of the guidance refreshes. No context is needed.",
    ),
    PublicReport(
        "huggingface/diffusers",
        12760,
        "The caches of diffusers on FLUX image to image, Kontext and inpainting: these pipelines "
        "set no cache context.",
        variants_of_flux,
        "The three pipelines, twice each: every third call refreshes.",
    ),
    PublicReport(
        "huggingface/diffusers",
        14037,
        "A run with the cache off, then `enable_cache`: an error, for the list of hooks is out of "
        "date.",
        switched_on_after_a_run_without,
        "Runs without, with, without and with fxcache: those without are equal, and so are those "
        "with.",
    ),
    PublicReport(
        "Jasonzzt/ComfyUI-CacheDiT",
        23,
        "The node is taken out of the workflow, and the cache goes on working.",
        left_out_of_the_workflow,
        "`restore(pipe)`: the next run has the bits of the plain pipeline, and all classes are the "
        "original ones.",
    ),
    PublicReport(
        "vipshop/cache-dit",
        767,
        "FLUX.2 klein with default settings: an error, for it has fewer blocks than the settings "
        "assume.",
        few_blocks_and_steps,
        "FLUX.2 klein with four blocks in all and four steps: works with no settings.",
        "Of four steps, the default policy refreshes three: little is gained. "
        "[Runs of few steps](few-steps.md) shows what other policies gain, and what they cost.",
    ),
    PublicReport(
        "vllm-project/vllm-omni",
        3166,
        "Qwen-Image-Edit-2511 with TeaCache: an error, for this version embeds two timesteps "
        "(`zero_cond_t`).",
        edited_with_zero_condition,
        "Qwen-Image-Edit with `zero_cond_t`: twice the same, and every third call refreshes.",
    ),
)
