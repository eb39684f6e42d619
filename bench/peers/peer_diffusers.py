"""The caches that diffusers brings: each as its documentation shows."""

import ast
import contextlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers.models.cache_utils import CacheMixin
from torch import Tensor

from bench.peers.contender import FIRST_BLOCK_RULE, Attach, Contender, fit_threshold
from bench.peers.subject import Ask, At, Live, Subject, sample

PACKAGE = "diffusers"
MAGCACHE_RULE = "MagCache"


class Place:
    """The place of the current step, as a pipeline's ``current_timestep`` has it."""

    timestep: Any = 0


Config = Callable[[Ask, Place], Any]


@contextmanager
def enabled(subject: Subject, config: Any, place: Place, setting: str) -> Iterator[Live]:
    """Enable a cache on the model inside the block, and do in a run what pipelines do."""
    model = subject.model
    if not isinstance(model, CacheMixin):
        # diffusers' hooks work on other models too. Only the methods that enable them are missing.
        model.__class__ = type(type(model).__name__, (CacheMixin, type(model)), {})
    model.enable_cache(config)

    @contextmanager
    def run(_: int) -> Iterator[None]:
        try:
            yield
        finally:
            model._reset_stateful_cache()

    def step(at: At, call: Callable[[], Tensor]) -> Tensor:
        place.timestep = at.timestep
        given = {"step_index": at.number, "sigma": at.sigma, "num_inference_steps": at.steps}
        with model.cache_context("cond", **given):
            return call()

    try:
        yield Live(model, run, step, setting=setting)
    finally:
        model.disable_cache()


def configured(make: Config, setting: Callable[[Ask], str]) -> Attach:
    """Return how to attach a cache whose configuration depends on the interval alone."""

    def attach(subject: Subject, ask: Ask) -> AbstractContextManager[Live]:
        place = Place()
        return enabled(subject, make(ask, place), place, setting(ask))

    return attach


class Thresholded(NamedTuple):
    """A cache that decides by a threshold: makes its configuration from a threshold."""

    rule: str
    make: Callable[[Subject, Ask, float], Any]

    @contextmanager
    def attach(self, subject: Subject, ask: Ask) -> Iterator[Live]:
        def at(threshold: float) -> AbstractContextManager[Live]:
            config = self.make(subject, ask, threshold)
            return enabled(subject, config, Place(), f"threshold={threshold:.3g}")

        threshold = fit_threshold(self.rule, subject, ask, at)
        with at(threshold) as live:
            yield live


def first_block(_: Subject, __: Ask, threshold: float) -> Any:
    return diffusers.FirstBlockCacheConfig(threshold=threshold)


def taylorseer(ask: Ask, _: Place, lite: bool = False) -> Any:
    """Compute the first three steps, as recommended, then every (interval + 1)-th."""
    attentions = [r".*\.attn[12]?"] if not lite else None
    return diffusers.TaylorSeerCacheConfig(
        cache_interval=ask.interval + 1,
        disable_cache_before_step=3,
        max_order=1,
        taylor_factors_dtype=torch.float32,
        use_lite_mode=lite,
        cache_identifiers=attentions,
    )


def pyramid(ask: Ask, place: Place) -> Any:
    """Skip all attentions between the timesteps 800 and 100, as the documentation does."""
    return diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=ask.interval,
        cross_attention_block_skip_range=ask.interval,
        spatial_attention_timestep_skip_range=(100, 800),
        cross_attention_timestep_skip_range=(100, 800),
        current_timestep_callback=lambda: place.timestep,
    )


def faster(ask: Ask, place: Place) -> Any:
    """Use the documentation's weight. Each call has one half of the guidance, or both halves."""
    return diffusers.FasterCacheConfig(
        spatial_attention_block_skip_range=ask.interval,
        spatial_attention_timestep_skip_range=(-1, 681),
        attention_weight_callback=lambda _: 0.3,
        is_guidance_distilled=True,
        current_timestep_callback=lambda: place.timestep,
    )


def sea(subject: Subject, _: Ask, threshold: float) -> Any:
    """Use the built-in adapter of Wan. Other models need a function that returns the latent."""
    raw = None if "Wan" in subject.name else raw_latent
    return diffusers.SeaCacheConfig(threshold=threshold, raw_vision_callback=raw)


def raw_latent(_: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Return each latent as ``[C, T, H, W]``."""
    latent: Tensor = kwargs.get("hidden_states", args[0] if args else None)
    if latent.dim() == 3:  # packed: [B, H * W, C]
        side = int(latent.shape[1] ** 0.5)
        latent = latent.transpose(1, 2).unflatten(2, (side, side))
    return list(latent.unsqueeze(2).unbind(0))


def calibrated_ratios(subject: Subject, ask: Ask) -> list[float]:
    """Return the magnitude ratios that diffusers' calibration prints in one uncached run."""
    config = diffusers.MagCacheConfig(calibrate=True, num_inference_steps=ask.steps)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), enabled(subject, config, Place(), "") as live:
        sample(subject, live, ask)
    (found,) = re.findall(r"^\[[\d., e-]+\]$", printed.getvalue(), re.MULTILINE)
    return [float(ratio) for ratio in ast.literal_eval(found)]


@contextmanager
def magcache(subject: Subject, ask: Ask) -> Iterator[Live]:
    """Use calibrated ratios, with the threshold that computes about as often as asked for."""
    ratios = calibrated_ratios(subject, ask)

    def make(_: Subject, __: Ask, threshold: float) -> Any:
        return diffusers.MagCacheConfig(
            threshold=threshold, num_inference_steps=ask.steps, mag_ratios=ratios
        )

    with Thresholded(MAGCACHE_RULE, make).attach(subject, ask) as live:
        yield live


def magcache_steps(ask: Ask, _: Place) -> Any:
    """Compute the steps that are asked for: no ratio matters."""
    return diffusers.MagCacheConfig(
        threshold=float("inf"),
        max_skip_steps=ask.interval - 1,
        retention_ratio=1 / ask.steps,
        num_inference_steps=ask.steps,
        mag_ratios=[1.0] * ask.steps,
    )


FIRST_BLOCK = Contender(
    "diffusers, FirstBlockCache",
    PACKAGE,
    Thresholded(FIRST_BLOCK_RULE, first_block).attach,
    "fxcache, FirstBlock",
)
MAGCACHE = Contender("diffusers, MagCache", PACKAGE, magcache, "fxcache, MagCache")
MAGCACHE_STEPS = Contender(
    "diffusers, MagCache, given steps",
    PACKAGE,
    configured(magcache_steps, lambda ask: f"max_skip_steps={ask.interval - 1}, no threshold"),
    "fxcache, automatic cut",
)
SEA = Contender("diffusers, SeaCache", PACKAGE, Thresholded("SeaCache", sea).attach)
TAYLORSEER = Contender(
    "diffusers, TaylorSeer",
    PACKAGE,
    configured(taylorseer, lambda ask: f"cache_interval={ask.interval + 1}, max_order=1"),
    "fxcache, Taylor, attentions",
)
TAYLORSEER_LITE = Contender(
    "diffusers, TaylorSeer lite",
    PACKAGE,
    configured(partial(taylorseer, lite=True), lambda a: f"cache_interval={a.interval + 1}, lite"),
)
PYRAMID = Contender(
    "diffusers, PyramidAttentionBroadcast",
    PACKAGE,
    configured(pyramid, lambda ask: f"skip_range={ask.interval}"),
)
FASTER = Contender(
    "diffusers, FasterCache",
    PACKAGE,
    configured(faster, lambda ask: f"skip_range={ask.interval}, is_guidance_distilled=True"),
)
