"""cache-dit: DBCache with its calibrators and step masks, and DBPrune."""

import copy
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from bench.peers.contender import Attach, Contender, fit_threshold
from bench.peers.subject import Ask, Live, Subject

PACKAGE = "cache-dit"
FIRST = 1  # computed blocks: the default, 8, would be most of the small models
WARM_UP = 2  # steps of DBCache that always compute; the default, 8, is for 28 steps and more


@contextmanager
def enabled(
    subject: Subject, steps: int, options: dict[str, Any], calibrator: str = "", prune: bool = False
) -> Iterator[Live]:
    """Enable cache-dit on the transformer inside the block, as its documentation shows."""
    import cache_dit

    kind = cache_dit.DBPruneConfig if prune else cache_dit.DBCacheConfig
    config = kind(
        Fn_compute_blocks=FIRST,
        Bn_compute_blocks=0,
        enable_separate_cfg=False,  # one call a step
        num_inference_steps=steps,
        **options,
    )
    forecast = getattr(cache_dit, f"{calibrator}CalibratorConfig")() if calibrator else None
    cache_dit.enable_cache(subject.model, cache_config=config, calibrator_config=forecast)

    def run(_: int) -> AbstractContextManager[object]:
        # A transformer without its pipeline keeps its context, so each run begins a new one.
        cache_dit.refresh_context(
            subject.model, cache_config=copy.deepcopy(config), calibrator_config=forecast
        )
        return nullcontext()

    try:
        yield Live(subject.model, run, setting=words(config), compiling=compile_configs)
    finally:
        cache_dit.disable_cache(subject.model)


def words(config: Any) -> str:
    """Return the package's own short form, with fewer digits of the threshold."""
    return re.sub(r"(R0\.\d{3})\d*", r"\1", str(config.strify()))


@contextmanager
def compile_configs() -> Iterator[None]:
    """Use the settings of torch.compile that cache-dit recommends, inside the block."""
    import cache_dit

    inductor, dynamo = torch._inductor.config, torch._dynamo.config
    before = inductor.save_config(), dynamo.save_config()
    cache_dit.set_compile_configs()
    try:
        yield
    finally:
        inductor.load_config(before[0])
        dynamo.load_config(before[1])


def mask(ask: Ask) -> list[int]:
    return [int(step in ask.refreshed) for step in range(ask.steps)]


def static(calibrator: str = "") -> Attach:
    """Compute the steps that are asked for, by a static step mask."""

    def attach(subject: Subject, ask: Ask) -> AbstractContextManager[Live]:
        options = {
            "max_warmup_steps": 1,
            "steps_computation_mask": mask(ask),
            "steps_computation_policy": "static",
        }
        return enabled(subject, ask.steps, options, calibrator)

    return attach


PREDEFINED = {2: "slow", 3: "medium", 4: "fast", 5: "ultra"}


def predefined(subject: Subject, ask: Ask) -> AbstractContextManager[Live]:
    """Use the package's own static mask: a faster one for a longer interval."""
    import cache_dit

    policy = PREDEFINED[min(ask.interval, max(PREDEFINED))]
    chosen = cache_dit.steps_mask(total_steps=ask.steps, mask_policy=policy)
    options = {
        "max_warmup_steps": 1,
        "steps_computation_mask": chosen,
        "steps_computation_policy": "static",
    }
    return enabled(subject, ask.steps, options)


def by_threshold(prune: bool) -> Attach:
    """Decide by the residual, with the threshold that computes as often as asked for."""

    def options(threshold: float) -> dict[str, Any]:
        return {"max_warmup_steps": WARM_UP, "residual_diff_threshold": threshold}

    @contextmanager
    def attach(subject: Subject, ask: Ask) -> Iterator[Live]:
        def at(threshold: float) -> AbstractContextManager[Live]:
            return enabled(subject, ask.steps, options(threshold), prune=prune)

        threshold = fit_threshold("DBPrune" if prune else "DBCache", subject, ask, at)
        with at(threshold) as live:
            yield live

    return attach


@contextmanager
def unconfigured(subject: Subject, ask: Ask) -> Iterator[Live]:
    """As ``static``, compiled with torch's own settings instead of the package's."""
    with static()(subject, ask) as live:
        yield replace(live, compiling=nullcontext)


STATIC = Contender("cache-dit, DBCache, step mask", PACKAGE, static(), "fxcache, the peers' cut")
TAYLOR = Contender(
    "cache-dit, TaylorSeer, step mask", PACKAGE, static("TaylorSeer"), "fxcache, Taylor"
)
UNCONFIGURED = Contender("cache-dit, DBCache, step mask, torch's settings", PACKAGE, unconfigured)
FOCA = Contender("cache-dit, FoCa, step mask", PACKAGE, static("FoCa"))
DMD = Contender("cache-dit, DMD, step mask", PACKAGE, static("DMD"))
MASKS = Contender("cache-dit, DBCache, its own step masks", PACKAGE, predefined)
DBCACHE = Contender("cache-dit, DBCache", PACKAGE, by_threshold(prune=False))
DBPRUNE = Contender("cache-dit, DBPrune", PACKAGE, by_threshold(prune=True))
