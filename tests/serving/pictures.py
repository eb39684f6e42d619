"""Pipelines that many threads call at once, and their pictures."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import diffusers
import torch
from torch import Tensor

import fxcache
from bench.pipelines.parts import denoiser, noise
from fxcache.serving import BatchedPipeline, rows_of
from tests import tiny
from tests.pipelines.build import FLUX_PROMPT, SD_PROMPT, WAN_PROMPT, assembled, flow_unipc

MOST = 2e-4  # guidance multiplies what rounding changes
COUNTS = (4, 7, 5)  # steps of the pictures that are drawn at once


def stable_diffusion() -> Any:
    return tiny.pipeline()


def second_order() -> Any:
    return tiny.pipeline(scheduler=diffusers.HeunDiscreteScheduler(steps_offset=1))


def flux() -> Any:
    model = denoiser("FluxTransformer2DModel", guidance_embeds=True)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return assembled(diffusers.FluxPipeline, transformer=model, scheduler=scheduler)


def wan() -> Any:
    model = denoiser("WanTransformer3DModel")
    return assembled(diffusers.WanPipeline, transformer=model, scheduler=flow_unipc())


# Wan calls its transformer twice a step, with and without the prompt.
PIPELINES: Mapping[str, tuple[Callable[[], Any], Mapping[str, Any]]] = {
    "Stable Diffusion": (stable_diffusion, SD_PROMPT),
    "a solver of second order": (second_order, SD_PROMPT),
    "FLUX": (flux, FLUX_PROMPT),
    "Wan": (wan, WAN_PROMPT),
}


def options_of(prompt: Mapping[str, Any], picture: int, rows: int = 1) -> dict[str, Any]:
    """Return the options of one picture, with a prompt of its own."""
    return {
        name: noise(rows, *value.shape[1:], seed=10 * picture + number)
        if isinstance(value, Tensor)
        else value
        for number, (name, value) in enumerate(prompt.items())
    }


def latents(call: Any, prompt: Mapping[str, Any], picture: int, **options: Any) -> Tensor:
    """Return the latents of a picture."""
    found: Tensor = call(
        **options_of(prompt, picture),
        num_inference_steps=COUNTS[picture],
        generator=torch.Generator().manual_seed(picture),
        output_type="latent",
        return_dict=False,
        **options,
    )[0]
    return found


def made(name: str) -> tuple[Any, Mapping[str, Any]]:
    """Return a pipeline that is optimised for any number of rows, and its prompt."""
    make, prompt = PIPELINES[name]
    pipe = make()
    optimize(pipe, pipe, prompt)
    return pipe, prompt


def optimize(target: Any, pipe: Any, prompt: Mapping[str, Any]) -> None:
    """Optimise a pipeline or its denoiser for any number of rows."""
    rows = rows_of(pipe, **options_of(prompt, 0, rows=3), num_inference_steps=2)
    capture = fxcache.CaptureConfig(dynamic=rows)
    fxcache.optimize(target, fxcache.Uniform(3), hoist=None, capture=capture)


def error(found: Tensor, expected: Tensor) -> float:
    """Return the greatest error as a share of the greatest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def together(batched: BatchedPipeline, prompt: Mapping[str, Any]) -> list[Tensor]:
    with ThreadPoolExecutor(len(COUNTS)) as pool:
        return list(pool.map(lambda n: latents(batched, prompt, n), range(len(COUNTS))))
