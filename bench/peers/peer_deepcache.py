"""DeepCache's own package."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from bench.peers.contender import Contender
from bench.peers.subject import Ask, Live, Subject

BRANCH = 0  # the package's default, and what its README uses


@contextmanager
def deepcache(subject: Subject, ask: Ask) -> Iterator[Live]:
    from DeepCache import DeepCacheSDHelper

    # The helper asks a pipeline for these two only.
    pipeline = SimpleNamespace(unet=subject.model, scheduler=subject.scheduler)
    helper = DeepCacheSDHelper(pipe=pipeline)
    helper.set_params(cache_interval=ask.interval, cache_branch_id=BRANCH)
    helper.enable()
    try:
        yield Live(
            subject.model, setting=f"cache_interval={ask.interval}, cache_branch_id={BRANCH}"
        )
    finally:
        helper.disable()


DEEPCACHE = Contender("DeepCache", "DeepCache", deepcache, "fxcache, the peers' cut")
