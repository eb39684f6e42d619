"""Requests to a small transformer: each alone, and all with a batcher."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import fxcache
from fxcache.serving import Batcher, Request
from tests.plain import dit, dit_inputs

DYNAMIC = {"sample": (0,), "timestep": (0,), "text": (0,)}
CAPTURE = fxcache.CaptureConfig(dynamic=DYNAMIC)


@dataclass(frozen=True)
class Wish:
    """A picture that somebody wants: its noise, its text and its number of steps."""

    seed: int
    steps: int = 8
    rows: int = 1
    policy: fxcache.Policy | None = None

    def inputs(self) -> dict[str, Any]:
        return dit_inputs(self.rows, self.seed)

    def timesteps(self) -> Tensor:
        return torch.linspace(900, 100, self.steps)

    @torch.no_grad()
    def latents(self, call: Callable[..., Tensor]) -> list[Tensor]:
        """Return the latent after each step."""
        given, found = self.inputs(), []
        latent = given["sample"]
        for t in self.timesteps():
            latent = latent - 0.1 * call(latent, t.expand(self.rows), given["text"])
            found.append(latent)
        return found


def optimized(depth: int = 3, **options: Any) -> torch.nn.Module:
    chosen = {"policy": fxcache.Uniform(3), "hoist": None, "capture": CAPTURE} | options
    return fxcache.optimize(dit(depth), **chosen)


def alone(wish: Wish, **options: Any) -> list[Tensor]:
    """Return the latents of a wish that a model serves alone, without a batcher."""
    if wish.policy:
        options = options | {"policy": wish.policy}
    padded = replace(wish, rows=max(wish.rows, 2))  # dynamic graphs serve two rows or more
    model = optimized(**options)

    def call(latent: Tensor, t: Tensor, text: Tensor) -> Tensor:
        rows = [x if len(x) > 1 else x.expand(2, *x.shape[1:]) for x in (latent, t, text)]
        found: Tensor = model(*rows)
        return found[: wish.rows]

    assert padded.rows >= 2
    with fxcache.session(model, num_steps=wish.steps):
        return wish.latents(call)


def in_rounds(
    batcher: Batcher, wishes: Sequence[Wish], delays: Sequence[int] = ()
) -> tuple[list[list[Tensor]], list[Request]]:
    """Serve all wishes in rounds of one thread. A wish begins after ``delays`` rounds."""
    begin = [*delays, *[0] * (len(wishes) - len(delays))]
    requests = [batcher.start(wish.steps, wish.policy) for wish in wishes]
    latents = [[wish.inputs()["sample"]] for wish in wishes]
    futures: dict[int, Any] = {}
    number = 0
    while any(len(found) <= wish.steps for found, wish in zip(latents, wishes, strict=True)):
        for i, (wish, request) in enumerate(zip(wishes, requests, strict=True)):
            step = len(latents[i]) - 1
            if i not in futures and step < wish.steps and number >= begin[i]:
                t = wish.timesteps()[step].expand(wish.rows)
                futures[i] = request.submit(latents[i][-1], t, wish.inputs()["text"])
        batcher.run_round()
        number += 1
        for i in [i for i, future in futures.items() if future.done()]:
            latents[i].append(latents[i][-1] - 0.1 * futures.pop(i).result())
    for request in requests:
        request.close()
    return [found[1:] for found in latents], requests


def in_threads(batcher: Batcher, wishes: Sequence[Wish]) -> list[list[Tensor]]:
    """Serve all wishes, each from a thread of its own."""

    def serve(wish: Wish) -> list[Tensor]:
        with batcher.start(wish.steps, wish.policy) as request:
            return wish.latents(request)

    with ThreadPoolExecutor(len(wishes)) as pool:
        return list(pool.map(serve, wishes))


def assert_close(found: list[list[Tensor]], expected: list[list[Tensor]]) -> None:
    """Check that all latents are equal up to the rounding of other batch sizes."""
    for some, other in zip(found, expected, strict=True):
        assert len(some) == len(other)
        for x, y in zip(some, other, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


def overwriting(module: torch.nn.Module) -> Any:
    """Return a callable whose results are overwritten by its next call, as in CUDA graphs."""
    kept: dict[Any, torch.Tensor] = {}

    def call(*inputs: torch.Tensor) -> Any:
        values = list(module(*inputs))
        for place, value in enumerate(values):
            if isinstance(value, torch.Tensor):
                buffer = kept.setdefault((place, value.shape), torch.empty_like(value))
                values[place] = buffer.copy_(value)
        return values

    return call
