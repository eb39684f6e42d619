"""The throughput of ``fxcache.serving.Batcher`` on the bundled U-Net.

``python -m bench.serving`` sends the same requests, which begin at the same times, in five ways:
one after another, and with a batcher, each with and without a cache, and with aligned first steps.
A request is a DDIM run of its own length with classifier-free guidance: two rows a step.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

import fxcache
from bench.output import run
from bench.trajectories import GUIDANCE, load, scheduler_of
from fxcache.serving import Batcher

REQUESTS, ROUNDS = 12, 3
LENGTHS = (10, 20, 30, 50)
MEAN_PAUSE = 0.1  # seconds between the beginnings of two requests
DYNAMIC = {"sample": (0,), "timestep": (0,), "encoder_hidden_states": (0,)}
CACHED, UNCACHED = fxcache.Uniform(3), fxcache.Uniform(1)
COUNTED = ("seconds", "calls", "mean_batch")  # what is the median of several rounds
Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Request:
    """A picture: when it begins, in seconds, its noise, its prompt and its number of steps."""

    begin: float
    noise: Tensor
    text: Tensor  # of the empty and of the wanted prompt
    steps: int


@dataclass(frozen=True)
class Way:
    """A way to serve the requests."""

    policy: fxcache.Policy
    batched: bool
    align: int = 0


WAYS = {
    "one after another, not cached": Way(UNCACHED, batched=False),
    "one after another, cached": Way(CACHED, batched=False),
    "batcher, not cached": Way(UNCACHED, batched=True),
    "batcher, cached": Way(CACHED, batched=True),
    "batcher, cached, aligned": Way(CACHED, batched=True, align=3),
}


def requests(pipeline: Any) -> list[Request]:
    """Return the requests, which are the same in every process."""
    drawn, generator = random.Random(0), torch.Generator().manual_seed(0)
    unet, begin, found = pipeline.unet.config, 0.0, []
    prompts = ("tiger face", "red apple", "bus", "tulip")
    for number in range(REQUESTS):
        text = torch.cat(pipeline.encode_prompt(prompts[number % 4], "cpu", 1, True)[::-1])
        shape = (1, unet.in_channels, unet.sample_size, unet.sample_size)
        noise = torch.randn(shape, generator=generator)
        found.append(Request(begin, noise, text, drawn.choice(LENGTHS)))
        begin += drawn.expovariate(1 / MEAN_PAUSE)
    return found


@torch.no_grad()
def picture(scheduler: DDIMScheduler, request: Request, denoise: Denoise) -> Tensor:
    """Return the latent at the end of a request."""
    latent = request.noise
    for t in scheduler.timesteps:
        both = torch.cat([latent, latent])
        without, wanted = denoise(both, t.expand(2), request.text).chunk(2)
        predicted = without + GUIDANCE * (wanted - without)
        latent = scheduler.step(predicted, t, latent).prev_sample
    return latent


class Served:
    """The results of all requests, and how long each took."""

    def __init__(self) -> None:
        self.latents: dict[int, Tensor] = {}
        self.latencies: dict[int, float] = {}


def serve(pipeline: Any, wanted: list[Request], way: Way) -> dict[str, Any]:
    """Serve all requests in one way. Return times, counts and the latents."""
    model = fxcache.optimize(
        pipeline.unet, way.policy, hoist=None, capture=fxcache.CaptureConfig(dynamic=DYNAMIC)
    )
    warm_up(model, wanted[0])
    lock, served = threading.Lock(), Served()
    batcher = Batcher(model, max_batch=16, align=way.align) if way.batched else None
    started = time.perf_counter()

    def one(number: int) -> None:
        request = wanted[number]
        time.sleep(max(0.0, started + request.begin - time.perf_counter()))
        scheduler = scheduler_of(pipeline, "DDIM", request.steps)
        with denoiser(model, batcher, lock, request.steps) as denoise:
            served.latents[number] = picture(scheduler, request, denoise)
        served.latencies[number] = time.perf_counter() - started - request.begin

    with batcher or nullcontext(), ThreadPoolExecutor(len(wanted)) as pool:
        list(pool.map(one, range(len(wanted))))
    seconds = time.perf_counter() - started
    found = {"seconds": seconds, "latencies": sorted(served.latencies.values())}
    if batcher:
        counted = batcher.statistics
        found |= {"calls": counted.calls, "mean_batch": counted.mean_batch}
    return found | {"latents": [served.latents[number] for number in range(len(wanted))]}


@torch.no_grad()
def warm_up(model: nn.Module, request: Request) -> None:
    """Capture the graphs."""
    with fxcache.session(model, num_steps=4):
        for t in (900, 600, 300, 100):
            latent = torch.cat([request.noise, request.noise])
            model(latent, torch.tensor([t, t]), request.text)


@contextmanager
def denoiser(
    model: nn.Module, batcher: Batcher | None, lock: threading.Lock, steps: int
) -> Iterator[Denoise]:
    """Yield the denoiser for one request. Without a batcher, requests take turns as a whole."""
    if batcher is None:
        with lock, fxcache.session(model, num_steps=steps):
            yield lambda *inputs: model(*inputs).sample
    else:
        with batcher.start(steps) as request:
            yield lambda *inputs: request(*inputs).sample


def measure() -> dict[str, Any]:
    """Return the medians of all ways, which take turns."""
    pipeline = load()
    wanted = requests(pipeline)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            rounds[name].append(serve(pipeline, wanted, way))
    found = {name: summary(served) for name, served in rounds.items()}
    alone = rounds["one after another, cached"][0]["latents"]
    batched = rounds["batcher, cached"][0]["latents"]
    errors = [float((x - y).norm() / y.norm()) for x, y in zip(batched, alone, strict=True)]
    steps = sum(request.steps for request in wanted)
    return {"requests": REQUESTS, "steps": steps, "largest_error": max(errors), "ways": found}


def summary(served: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians over rounds."""
    latencies = [x for one in served for x in one["latencies"]]
    kept = {key: median(one[key] for one in served) for key in served[0] if key in COUNTED}
    return kept | {
        "median_latency": median(latencies),
        "latency_95": sorted(latencies)[int(0.95 * len(latencies))],
        "requests_per_second": REQUESTS / kept["seconds"],
    }


if __name__ == "__main__":
    run(__doc__, measure)
