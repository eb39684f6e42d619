"""Reports about guidance: batched, in calls of its own, inside the model, of skipped layers."""

from typing import Any

import torch
from torch import Tensor

import fxcache
from bench.pipelines.draw import same
from bench.pipelines.families import longcat_image, stable_diffusion_3, stable_diffusion_variants
from bench.pipelines.parts import noise
from bench.reports import models
from bench.reports.report import PublicReport
from bench.reports.requests import EVERY_THIRD, Request, built, call, in_order, recipe_of


@torch.no_grad()
def guided(model: Any, together: int) -> Tensor:
    """Sample with guidance: so many steps with both halves in a batch, then in two calls a step."""
    wanted, unwanted = models.text(seed=1), models.text(seed=2)
    both = torch.cat([wanted, unwanted])
    latent = noise(1, models.TOKENS, models.CHANNELS)
    for step, timestep in enumerate(torch.linspace(900, 100, models.STEPS)):
        if step < together:
            first, second = model(latent.repeat(2, 1, 1), timestep, both).chunk(2)
        else:
            first, second = (model(latent, timestep, half) for half in (wanted, unwanted))
        latent = latent - 0.1 * (second + 3 * (first - second))
    return latent


def batched_or_not() -> list[str]:
    """Sample with both halves in a batch, in two calls, and changing in the middle of a run."""
    ways = (models.STEPS, 0, 3, models.STEPS)
    plain = [guided(models.denoiser(), way) for way in ways]
    model, faults = fxcache.optimize(models.denoiser(), fxcache.Uniform(1)), []
    for way, expected in zip(ways, plain, strict=True):
        with fxcache.session(model):
            if not torch.equal(guided(model, way), expected):
                faults.append(
                    f"{way} steps in a batch: refreshing at every step changes the result"
                )
    fxcache.optimize(model, EVERY_THIRD)
    for way in ways:
        lone = fxcache.optimize(models.denoiser(), EVERY_THIRD)
        with fxcache.session(lone):
            expected = guided(lone, way)
        with fxcache.session(model):
            if not torch.equal(guided(model, way), expected):
                faults.append(f"{way} steps in a batch: differs from the request alone")
    return faults


def inside_the_model() -> list[str]:
    """Sample with a model that computes both halves in its ``forward``."""
    given = {"text": models.text(), "negative": models.text(seed=2)}
    model = models.denoiser(models.GuidedInside)
    plain = {scale: models.denoised(model, scale=scale, **given) for scale in (1.0, 4.0)}
    fxcache.optimize(model, fxcache.Uniform(1))
    faults = [
        f"scale {scale}: refreshing at every step changes the result"
        for scale, expected in plain.items()
        if not torch.equal(models.denoised(model, scale=scale, **given), expected)
    ]
    fxcache.optimize(model, EVERY_THIRD)
    cached = {scale: models.denoised(model, scale=scale, **given) for scale in plain}
    for scale, result in cached.items():
        if torch.equal(result, plain[scale]):
            faults.append(f"scale {scale}: nothing was reused")
    near, far = ((cached[4.0] - plain[scale]).norm() for scale in (4.0, 1.0))
    if not near < far / 2:
        faults.append("the guided result is not closest to the guided one without a cache")
    return faults


def skipped_layers() -> list[str]:
    recipe = recipe_of(stable_diffusion_3.RECIPES, "StableDiffusion3Pipeline")
    options = {"skip_guidance_layers": [1], "skip_layer_guidance_stop": 1.0}
    with_skips, without = call(recipe, **options), call(recipe)
    requests = [Request(drawing) for drawing in (with_skips, without, with_skips)]
    return in_order(built(recipe), requests)


def two_calls_a_step() -> list[str]:
    recipe = recipe_of(longcat_image.RECIPES, "LongCatImagePipeline")
    unguided = call(recipe, guidance_scale=1.0)
    requests = [Request(drawing) for drawing in (call(recipe), unguided, call(recipe))]
    return in_order(built(recipe), requests)


def windows() -> list[str]:
    """Denoise a wide picture in three overlapping windows, each in calls of its own."""
    recipe = recipe_of(stable_diffusion_variants.RECIPES, "StableDiffusionPanoramaPipeline")
    faults = in_order(built(recipe), [Request(call(recipe))] * 2)
    pipe = built(recipe)()
    fxcache.optimize(pipe, EVERY_THIRD)
    first = call(recipe)(pipe)
    runs = fxcache.report(pipe.unet).runs
    if sorted(len(run.refreshes) for run in runs) != [3, 3, 3]:
        faults.append(f"the windows refreshed {[run.refreshes for run in runs]}")
    return faults if same(call(recipe)(pipe), first) else [*faults, "a second run differs"]


REPORTS = (
    PublicReport(
        "kijai/ComfyUI-KJNodes",
        219,
        "Wan with TeaCache: at times it fails after a change of the prompt alone, for the halves "
        "of the guidance come in one batch or in two calls, as memory allows.",
        batched_or_not,
        "A loop with both halves in a batch, in two calls, and changing in the middle of a run, "
        "each in a session: as in a new model.",
    ),
    PublicReport(
        "vllm-project/vllm-omni",
        4659,
        "Bagel with TeaCache: the model combines the halves in its own `forward`, the cache runs "
        "the conditional one alone, and guidance is lost without a warning.",
        inside_the_model,
        "A transformer that guides in its `forward` is one graph with both halves: exact if every "
        "step refreshes, and guided if not.",
    ),
    PublicReport(
        "welltop-cn/ComfyUI-TeaCache",
        90,
        "A node for TeaCache and a node for skip-layer guidance do not work together.",
        skipped_layers,
        "Stable Diffusion 3 with, without and with skipped layers: each as in a new pipeline. The "
        "calls that skip layers are a run of their own.",
    ),
    PublicReport(
        "vllm-project/vllm-omni",
        2860,
        "LongCat-Image with Cache-DiT: bad pictures, for nobody told the cache that guidance takes "
        "two calls a step, and both read one cache.",
        two_calls_a_step,
        "LongCat-Image with guidance, without, and with: each as in a new pipeline. The two calls "
        "are told apart by their prompts.",
        kind="pull",
    ),
    PublicReport(
        "kijai/ComfyUI-WanVideoWrapper",
        134,
        "A long video in context windows with TeaCache: part of the way through, it skips every "
        "step, and the video is broken.",
        windows,
        "A panorama in three windows: each window refreshes every third of its own calls.",
    ),
)
