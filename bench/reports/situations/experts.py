"""Reports about Wan 2.2, which has a denoiser for much noise and one for little."""

from typing import Any

import fxcache
from bench.pipelines.families import wan
from bench.pipelines.parts import assembled, denoiser
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import flow_unipc, wan_vae
from bench.reports.report import PublicReport
from bench.reports.requests import (
    EVERY_THIRD,
    Request,
    built,
    call,
    counts,
    in_order,
    recipe_of,
    silent,
)

DEFAULT = fxcache.ProtectedEnds()
MAGNITUDES = fxcache.MagCache(ratios=(1.0,) + (0.999,) * 13)


def two_experts() -> Any:
    return assembled(
        "WanPipeline",
        transformer=denoiser("WanTransformer3DModel"),
        transformer_2=denoiser("WanTransformer3DModel", num_layers=3),
        boundary_ratio=0.8,
        scheduler=flow_unipc(),
        vae=wan_vae(),
    )


RECIPE = PipelineRecipe("WanPipeline", two_experts, wan.text_to_video, steps=14)


def two_requests() -> list[str]:
    return in_order(lambda: silent(two_experts()), [Request(call(RECIPE))] * 2)


def steps_of_each() -> list[str]:
    requests = [Request(call(RECIPE))] * 2
    faults = in_order(lambda: silent(two_experts()), requests, (DEFAULT, MAGNITUDES))
    pipe = silent(two_experts())
    fxcache.optimize(pipe)
    call(RECIPE, num_inference_steps=4)(pipe)
    found = counts(pipe)
    if any(refreshes < steps for refreshes, steps in found.values()):
        faults.append(f"a run of four steps gains something: {found}")
    return faults


def with_controls() -> list[str]:
    recipe = recipe_of(wan.RECIPES, "WanVACEPipeline")
    return in_order(built(recipe), [Request(call(recipe))], (EVERY_THIRD,))


REPORTS = (
    PublicReport(
        "kijai/ComfyUI-KJNodes",
        371,
        "Wan 2.2 with TeaCache: after the first video all steps are skipped, whatever the prompt.",
        two_requests,
        "Two videos with both experts optimised: the second has the bits and the refreshes of the "
        "first.",
    ),
    PublicReport(
        "huggingface/diffusers",
        14025,
        "MagCache on Wan 2.2 takes the steps of the pipeline for those of each expert, and gains "
        "little on a model distilled to four steps.",
        steps_of_each,
        "Two videos of 14 steps with `MagCache` and the default policy: the second has the bits "
        "and the refreshes of the first.",
        "Four steps are two for each expert, which the default policy refreshes all: no gain.",
        "The first expert took the steps of the pipeline for its own in the first run, and no "
        "longer in the second one. Test: `test_wan_each_expert_knows_its_steps_in_the_first_run` "
        "in `tests/pipelines/test_transformer_pipelines.py`.",
    ),
    PublicReport(
        "vllm-project/vllm-omni",
        4632,
        "Wan 2.2 VACE with Cache-DiT: no speed-up, for a general path that does not fit is taken.",
        with_controls,
        "Wan VACE with two experts: every third call of each refreshes, and the others reuse.",
    ),
)
