"""First-Block Cache as para-attn, which introduced it, implements it."""

import unittest.mock  # para-attn uses it without importing it
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from bench.peers.contender import FIRST_BLOCK_RULE, Contender, fit_threshold
from bench.peers.subject import Ask, Live, Subject

assert unittest.mock


@contextmanager
def first_block_cache(subject: Subject, ask: Ask) -> Iterator[Live]:
    from para_attn.first_block_cache.diffusers_adapters import apply_cache_on_transformer

    forward = subject.model.forward
    apply_cache_on_transformer(subject.model)
    try:
        threshold = fit_threshold(FIRST_BLOCK_RULE, subject, ask, partial(with_threshold, subject))
        with with_threshold(subject, threshold) as live:
            yield live
    finally:
        subject.model.forward = forward


@contextmanager
def with_threshold(subject: Subject, threshold: float) -> Iterator[Live]:
    from para_attn.first_block_cache import utils

    def run(_: int) -> AbstractContextManager[object]:
        context = utils.create_cache_context(residual_diff_threshold=threshold)
        block: AbstractContextManager[object] = utils.cache_context(context)
        return block

    yield Live(subject.model, run, setting=f"residual_diff_threshold={threshold:.3g}")


FIRST_BLOCK_CACHE = Contender(
    "para-attn, First-Block Cache", "para-attn", first_block_cache, "fxcache, FirstBlock"
)
