"""Reports about servers: requests at the same time, in a batch, and their memory."""

import gc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import diffusers
import torch
from torch import Tensor

import fxcache
from bench.pipelines.draw import same
from bench.pipelines.families import wan, z_image
from bench.pipelines.parts import noise
from bench.reports import models
from bench.reports.report import PublicReport
from bench.reports.requests import EVERY_THIRD, Request, alone, built, recipe_of, silent, whole


def at_the_same_time() -> list[str]:
    """Send two requests at once, each in a thread and a pipeline that share the transformer."""
    recipe = recipe_of(z_image.RECIPES, "ZImagePipeline")
    prompts = [[noise(7, 24, seed=seed)] for seed in (0, 3)]

    def request(pipe: Any, words: list[Tensor]) -> list[Tensor]:
        options = {**recipe.call(), "prompt_embeds": words, "num_inference_steps": 8}
        generator = torch.Generator().manual_seed(0)
        pictures = pipe(generator=generator, output_type="latent", return_dict=False, **options)
        return [pictures[0]]

    lone = [
        alone(built(recipe), [Request(partial(request, words=words))], whole(EVERY_THIRD))
        for words in prompts
    ]
    pipe = built(recipe)()
    fxcache.optimize(pipe, EVERY_THIRD)
    parts = dict(pipe.components)
    started = Barrier(len(prompts))

    def served(words: list[Tensor]) -> list[Tensor]:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        own = silent(diffusers.ZImagePipeline(**{**parts, "scheduler": scheduler}))
        started.wait()
        return request(own, words)

    faults = []
    with ThreadPoolExecutor(len(prompts)) as threads:
        for _ in range(3):
            results = list(threads.map(served, prompts))
            for n, (result, expected) in enumerate(zip(results, lone, strict=True)):
                if not same(result, expected.results):
                    faults.append(f"thread {n + 1}: differs from the request alone")
    return faults


def in_one_batch() -> list[str]:
    """Sample two latents in one batch, and each by itself."""
    latents, texts = noise(2, models.TOKENS, models.CHANNELS), models.text(2)
    model, faults = fxcache.optimize(models.denoiser(), EVERY_THIRD), []
    both = models.denoised(model, latents, text=texts)
    runs = [fxcache.report(model).runs[-1].refreshes]
    for n in range(2):
        single = models.denoised(model, latents[n : n + 1], text=texts[n : n + 1])
        runs.append(fxcache.report(model).runs[-1].refreshes)
        if not torch.allclose(both[n : n + 1], single, rtol=1e-4, atol=1e-5):
            faults.append(f"latent {n + 1} of the batch differs from the same one alone")
    if runs[1:] != runs[:-1]:
        faults.append(f"the refreshes differ: {runs}")
    return faults


def bytes_alive() -> int:
    """Return the bytes of all tensors that exist."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (Tensor, torch.nn.Parameter) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def memory_of_many_requests() -> list[str]:
    """Send eight requests, and look at what is kept in between, and after ``clear``."""
    recipe = recipe_of(wan.RECIPES, "WanPipeline")
    pipe, kept = built(recipe)(), []
    fxcache.optimize(pipe, fxcache.ProtectedEnds())
    words = recipe.call()
    for _ in range(8):
        pipe(
            generator=torch.Generator().manual_seed(0),
            num_inference_steps=7,
            output_type="latent",
            **words,
        )
        kept.append((fxcache.report(pipe.transformer).cached_bytes, bytes_alive()))
    faults = [] if len(set(kept[1:])) == 1 else [f"bytes kept after each request: {kept}"]
    fxcache.clear(pipe)
    left = fxcache.report(pipe.transformer).cached_bytes
    freed = kept[-1][1] - bytes_alive()
    if left or freed < kept[-1][0]:
        faults.append(f"clear frees {freed} of {kept[-1][0]} bytes, and {left} are left")
    return faults


REPORTS = (
    PublicReport(
        "vllm-project/vllm-omni",
        3448,
        "Requests at the same time to Z-Image-Turbo: can they run in parallel, and does a cache "
        "help with few steps?",
        at_the_same_time,
        "Two threads, each with a pipeline and a scheduler of its own around one transformer, "
        "three times, the first while it is captured: each request as alone.",
        "With eight steps, the default policy refreshes four, so that the denoiser is at most "
        "twice as fast; with fewer steps, less.",
    ),
    PublicReport(
        "nunchux-ai/nunchaku",
        596,
        "A batch gives other results than its samples one by one, for the cache decides about the "
        "whole batch.",
        in_one_batch,
        "Two latents in a batch and one by one, with `Uniform`: the same refreshes, and the same "
        "results up to rounding.",
        "Policies that observe a signal (`FirstBlock`, `TeaCache` in transformers) decide about "
        "the whole batch too: a sample may then refresh at other steps than alone.",
    ),
    PublicReport(
        "huggingface/diffusers",
        13497,
        "Pyramid Attention Broadcast keeps the outputs of attentions on the GPU outside of the "
        "timesteps that use them, until the next run.",
        memory_of_many_requests,
        "Eight requests: the bytes that are kept stay the same, and `fxcache.clear(pipe)` frees "
        "them.",
        "Without `clear`, the cached values of the last run stay in memory until the next run "
        "takes their place.",
        kind="pull",
    ),
)
