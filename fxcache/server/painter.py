"""Draws pictures for many requests at once, in one process."""

import asyncio
import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from fxcache.deploy.load import load
from fxcache.errors import ConfigError
from fxcache.integrations.diffusers import conditions, load_pipeline
from fxcache.server.config import ServerConfig
from fxcache.serving import BatchedPipeline, Statistics


@dataclass(frozen=True)
class Wish:
    """A picture that a client wants.

    Attributes:
        prompt: The prompt, or the name of a class.
        steps: The number of denoising steps.
        seed: The seed of the noise.
        guidance_scale: The scale of classifier-free guidance; None for the pipeline's default.
    """

    prompt: str
    steps: int
    seed: int
    guidance_scale: float | None = None


@dataclass(frozen=True)
class Drawn:
    """The result of a wish.

    Attributes:
        png: The picture as a PNG file; empty if the wish was refused.
        refusal: Why it was refused; empty if it was not.
        process: The process that drew it.
    """

    png: bytes = b""
    refusal: str = ""
    process: int = 0


class StoppedError(Exception):
    """The client no longer waits for the picture."""


class Painter:
    """Draws the pictures of many requests. Their steps share calls of the denoiser.

    Args:
        config: The options of the server.
    """

    def __init__(self, config: ServerConfig) -> None:
        torch.set_num_threads(config.threads)
        pipeline = load_pipeline(config.pipeline, getattr(torch, config.dtype), config.device)
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline, self._device = pipeline, config.device
        denoiser = load(config.artifact, device=config.device)
        options = {name: getattr(config, name) for name in ("max_batch", "linger", "align")}
        self._batched = BatchedPipeline(pipeline, denoiser, **options).__enter__()
        self._pool = ThreadPoolExecutor(config.max_ongoing, thread_name_prefix="fxcache-painter")
        try:
            self._call(Wish(an_example(pipeline), steps=2, seed=0), lambda: None)
        except BaseException:  # what cannot be drawn fails now, and leaves no thread behind
            self.close()
            raise

    @property
    def statistics(self) -> Statistics:
        """What the batcher did so far."""
        return self._batched.batcher.statistics

    async def draw(self, wish: Wish) -> Drawn:
        """Draw a picture. If the caller is cancelled, the picture ends at its next step."""
        stopped = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, self._drawn, wish, stopped)
        finally:
            stopped.set()

    def close(self) -> None:
        """End all pictures."""
        self._batched.__exit__(None, None, None)
        self._pool.shutdown()

    def _drawn(self, wish: Wish, stopped: threading.Event) -> Drawn:
        """Draw a picture in this thread."""

        begun = False

        def before_step() -> None:
            nonlocal begun
            if stopped.is_set():
                raise StoppedError
            begun = True

        try:
            return Drawn(png_of(self._call(wish, before_step)), process=os.getpid())
        except ValueError as error:  # ConfigErrors, and what pipelines raise for their inputs
            if begun:
                raise
            return Drawn(refusal=str(error), process=os.getpid())

    def _call(self, wish: Wish, before_step: Callable[[], None]) -> Any:
        """Call the pipeline, and return its first picture."""
        guided = {} if wish.guidance_scale is None else {"guidance_scale": wish.guidance_scale}
        result = self._batched(
            conditions(self._pipeline, [wish.prompt]),
            before_step=before_step,
            num_inference_steps=wish.steps,
            generator=torch.Generator(self._device).manual_seed(wish.seed),
            **guided,
        )
        if not hasattr(result, "images"):
            raise ConfigError(
                f"{type(self._pipeline).__name__} draws no pictures",
                where="fxcache serve",
                remedy="serve it with fxcache.serving.BatchedPipeline in a server of your own",
            )
        return result.images[0]


def an_example(pipeline: Any) -> str:
    """Return a prompt that the pipeline can draw: a class, if it knows classes only."""
    return str(next(iter(pipeline.labels))) if hasattr(pipeline, "get_label_ids") else "a picture"


def png_of(image: Any) -> bytes:
    """Return a PIL image as a PNG file."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
