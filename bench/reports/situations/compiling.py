"""Reports about caches beside compilers."""

import torch

import fxcache
from bench.pipelines.draw import same
from bench.pipelines.families import stable_diffusion
from bench.pipelines.parts import picture
from bench.pipelines.recipe import PipelineRecipe
from bench.reports.report import PublicReport
from bench.reports.requests import EVERY_THIRD, Request, built, call, counts, in_order, recipe_of
from fxcache._torch import compilations


def recipe() -> PipelineRecipe:
    return recipe_of(stable_diffusion.RECIPES, "StableDiffusionPipeline")


def in_either_order() -> list[str]:
    """Optimise, then compile, and the other way around."""
    faults, eager = [], built(recipe())()
    fxcache.optimize(eager, EVERY_THIRD)
    expected = call(recipe())(eager)
    for first in ("optimize", "compile"):
        pipe = built(recipe())()
        torch.compiler.reset()
        with compilations() as found:
            if first == "optimize":
                fxcache.optimize(pipe, EVERY_THIRD)
            pipe.unet.compile(backend=found.backend, fullgraph=True)
            if first == "compile":
                fxcache.optimize(pipe, EVERY_THIRD)
            results = [call(recipe())(pipe) for _ in range(2)]
        if len(found.graphs) != 2:
            faults.append(f"{first} first: {len(found.graphs)} graphs")
        if not all(same(result, expected) for result in results):
            faults.append(f"{first} first: another result than in eager mode")
    return faults


def odd_sizes() -> list[str]:
    """Image to image, whose latents have odd sizes, in eager mode and compiled."""
    made = recipe_of(stable_diffusion.RECIPES, "StableDiffusionImg2ImgPipeline")
    drawings = [call(made, image=picture(side)) for side in (32, 34, 36)]
    faults = in_order(built(made), [Request(drawing) for drawing in drawings])
    pipe = built(made)()
    fxcache.optimize(pipe, EVERY_THIRD)
    expected = [drawing(pipe) for drawing in drawings]
    torch.compiler.reset()
    with compilations() as found:
        pipe.unet.compile(backend=found.backend, fullgraph=True, dynamic=False)
        for _ in range(2):
            if not all(same(d(pipe), e) for d, e in zip(drawings, expected, strict=True)):
                faults.append("compiled: another result than in eager mode")
    if len(found.graphs) != 2 * len(drawings):
        faults.append(f"{len(found.graphs)} graphs for {len(drawings)} sizes")
    return faults


def added_to_a_compiled_model() -> list[str]:
    """Compile, draw, and optimise after that."""
    pipe = built(recipe())()
    torch.compiler.reset()
    with compilations() as found:
        pipe.unet.compile(backend=found.backend)
        plain = call(recipe())(pipe)
        fxcache.optimize(pipe, EVERY_THIRD)
        cached = call(recipe())(pipe)
    faults = ["nothing was reused"] if same(cached, plain) else []
    refreshes, steps = counts(pipe)["unet"]
    if refreshes * 2 > steps:
        faults.append(f"{refreshes} of {steps} steps refreshed")
    return faults


REPORTS = (
    PublicReport(
        "chengzeyi/stable-fast",
        110,
        "DeepCache is set up first, then a compiler that traces the U-Net: an error.",
        in_either_order,
        "`optimize` and `torch.compile(fullgraph=True)` in either order: two graphs, and the bits "
        "of eager mode.",
    ),
    PublicReport(
        "siliconflow/onediff",
        602,
        "Compiled image to image: sizes such as 528×528, whose latents have odd sizes inside the "
        "U-Net, fail. The fix is in the compiler's DeepCache.",
        odd_sizes,
        "Pictures whose latents have 16, 17 and 18 rows: each as in a new pipeline, and two graphs "
        "for each size.",
    ),
    PublicReport(
        "Comfy-Org/ComfyUI",
        14795,
        "EasyCache added to a model that is compiled already: no step is skipped.",
        added_to_a_compiled_model,
        "`optimize` after a compiled run: at most half of the next run's steps refresh.",
    ),
)
