"""Reports about requests that follow one another."""

from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

import fxcache
from bench.pipelines.families import (
    flux,
    hunyuan_video,
    qwen_image,
    stable_diffusion_xl,
    wan,
    z_image,
)
from bench.pipelines.parts import picture, square
from bench.reports.report import PublicReport
from bench.reports.requests import (
    EVERY_THIRD,
    Draw,
    Request,
    built,
    call,
    each_module,
    in_order,
    recipe_of,
)

DEFAULT = fxcache.ProtectedEnds()


class CancelledError(Exception):
    """The user cancels the request."""


def cancelled(draw: Any, step: int = 2) -> Draw:
    """Return a function that draws, and is cancelled after this step."""

    def cancel(_pipe: Any, done: int, _timestep: Any, values: Any) -> Any:
        if done == step:
            raise CancelledError
        return values

    def drawn(pipe: Any) -> list[Tensor]:
        with suppress(CancelledError):
            draw(callback_on_step_end=cancel)(pipe)
        return [torch.zeros(1)]

    return drawn


def never_disabled() -> list[str]:
    recipe = recipe_of(stable_diffusion_xl.RECIPES, "StableDiffusionXLPipeline")
    steps = (7, 9, 7)
    requests = [Request(call(recipe, num_inference_steps=n)) for n in steps]
    return in_order(built(recipe), requests, (EVERY_THIRD, DEFAULT))


def other_steps_and_size() -> list[str]:
    recipe = recipe_of(flux.RECIPES, "FluxPipeline")
    sizes = ((7, 32), (12, 16), (8, 32))
    requests = [Request(call(recipe, num_inference_steps=n, **square(side))) for n, side in sizes]
    return in_order(built(recipe), requests, (EVERY_THIRD, DEFAULT))


def another_picture_and_back() -> list[str]:
    recipe = recipe_of(wan.RECIPES, "WanImageToVideoPipeline")
    requests = [Request(call(recipe, image=picture(seed=seed))) for seed in (0, 5, 0)]
    return in_order(built(recipe), requests)


def another_size_of_video() -> list[str]:
    recipe = recipe_of(wan.RECIPES, "WanImageToVideoPipeline")
    sizes = ({"height": 32, "width": 32}, {"height": 32, "width": 48})
    return in_order(built(recipe), [Request(call(recipe, **size)) for size in sizes])


def low_then_high_resolution() -> list[str]:
    recipe = recipe_of(hunyuan_video.RECIPES, "HunyuanVideoPipeline")

    def both(pipe: Any) -> list[Tensor]:
        (latents,) = call(recipe)(pipe)
        larger = torch.nn.functional.interpolate(latents, scale_factor=(1, 2, 2))
        return call(recipe, latents=larger, num_inference_steps=8, **square(64))(pipe)

    return in_order(built(recipe), [Request(both)] * 2)


def cancelled_requests() -> list[str]:
    recipe = recipe_of(z_image.RECIPES, "ZImagePipeline")
    request = Request(call(recipe))
    stopped = Request(cancelled(partial(call, recipe)), reuses=False)
    return in_order(built(recipe), [request, stopped, request], (EVERY_THIRD, DEFAULT))


def warmed_up_with_one_step() -> list[str]:
    recipe = recipe_of(wan.RECIPES, "WanPipeline")
    steps = Request(call(recipe, num_inference_steps=1), reuses=False)
    usual = Request(call(recipe, num_inference_steps=10))
    return in_order(built(recipe), [steps, usual, usual], (EVERY_THIRD, DEFAULT))


def steps_known_with_the_request() -> list[str]:
    recipe = recipe_of(qwen_image.RECIPES, "QwenImagePipeline")
    requests = [Request(call(recipe, num_inference_steps=n)) for n in (8, 12, 8)]
    return in_order(built(recipe), requests, (EVERY_THIRD, DEFAULT), each_module)


def two_pictures_then_one() -> list[str]:
    recipe = recipe_of(qwen_image.RECIPES, "QwenImageEditPlusPipeline")
    pictures = [picture(32), picture(32, seed=3)]
    requests = [Request(call(recipe, image=given)) for given in (pictures, pictures[:1], pictures)]
    return in_order(built(recipe), requests)


REPORTS = (
    PublicReport(
        "PrunaAI/pruna",
        50,
        "A server with DeepCache on SDXL: trouble after several requests, unless the cache is "
        "disabled and enabled between them.",
        never_disabled,
        "Three requests of 7, 9 and 7 steps, with nothing between them: each as in a new pipeline, "
        "also with the default policy.",
    ),
    PublicReport(
        "welltop-cn/ComfyUI-TeaCache",
        4,
        "FLUX, with other steps than the cache node was told: the next picture fails with sizes "
        "that do not match.",
        other_steps_and_size,
        "FLUX with 7, 12 and 8 steps at two sizes, and nothing told: each as in a new pipeline.",
    ),
    PublicReport(
        "kijai/ComfyUI-KJNodes",
        344,
        "Image to video with TeaCache: another picture fails, and the first picture again gives "
        "noise in which the earlier video shows.",
        another_picture_and_back,
        "Wan image to video with one picture, another one, and the first again: each as in a new "
        "pipeline.",
    ),
    PublicReport(
        "sgl-project/sglang",
        17140,
        "Two requests after each other to a server of Wan 2.2 image to video, of two sizes: shapes "
        "do not match in the cache.",
        another_size_of_video,
        "Two sizes: each as in a new pipeline, with a capture for each.",
        "Each new combination of shapes is captured once, which takes seconds in large models. "
        "Dimensions named in `CaptureConfig(dynamic=…)` share one capture.",
        kind="pull",
    ),
    PublicReport(
        "chengzeyi/Comfy-WaveSpeed",
        14,
        "HunyuanVideo in two samplers, a small video, then its latent enlarged: the second one "
        "reads the first one's cache, and fails.",
        low_then_high_resolution,
        "HunyuanVideo, the latent enlarged, HunyuanVideo again, and all of it twice: as in a new "
        "pipeline.",
    ),
    PublicReport(
        "Jasonzzt/ComfyUI-CacheDiT",
        29,
        "Z-Image with a queue of requests, of which one is cancelled: an error from the cache.",
        cancelled_requests,
        "A request, one that is cancelled after three steps, and the first again: as in a new "
        "pipeline, also with the default policy.",
        mended="The default policy took the length of the cancelled run for that of the next one. "
        "Tests: `test_the_length_of_…` in `tests/runtime/test_pipeline_runs.py`.",
    ),
    PublicReport(
        "vllm-project/vllm-omni",
        7335,
        "A server warms Wan 2.2 up with one step. A later request does not name its steps, so the "
        "cache believes that the run is over, and never reuses anything.",
        warmed_up_with_one_step,
        "One step, then ten, twice: each as in a new pipeline, also with the default policy, which "
        "must know the steps.",
        kind="pull",
    ),
    PublicReport(
        "vipshop/cache-dit",
        540,
        "The cache is enabled on the transformer alone, and must be told the number of steps, "
        "which a server knows with each request only.",
        steps_known_with_the_request,
        "`optimize(pipe.transformer)` of Qwen-Image, and requests of 8, 12 and 8 steps with the "
        "default policy: each as in a new pipeline, and nothing is told.",
        "A loop of your own whose timesteps are numbers must tell the length: "
        "`fxcache.session(model, num_steps=…)`.",
    ),
    PublicReport(
        "vllm-project/vllm-omni",
        2036,
        "Qwen-Image-Edit-2509 with TeaCache: an error, for a call has more tokens than the one "
        "that it is compared with.",
        two_pictures_then_one,
        "Two pictures to edit, one, and two again: each as in a new pipeline.",
    ),
)
