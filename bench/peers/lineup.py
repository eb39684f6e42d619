"""Which contenders run on which subject."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import fxcache
from bench.peers import (
    bundled,
    models,
    ours,
    peer_cache_dit,
    peer_deepcache,
    peer_diffusers,
    peer_hicache,
    peer_para_attn,
)
from bench.peers.contender import Contender, fit_threshold
from bench.peers.subject import Ask, Live, Subject
from fxcache.policies import Explicit, MagCache


@contextmanager
def magcache(subject: Subject, ask: Ask) -> Iterator[Live]:
    """Use MagCache with the ratios that diffusers' calibration measures."""
    ratios = tuple(peer_diffusers.calibrated_ratios(subject, ask))

    def at(threshold: float) -> AbstractContextManager[Live]:
        return ours.optimized(subject, MagCache(ratios, threshold))

    with at(fit_threshold(peer_diffusers.MAGCACHE_RULE, subject, ask, at)) as live:
        yield live


def taylor_of_attentions(subject: Subject, ask: Ask) -> AbstractContextManager[Live]:
    """Extrapolate each attention, and refresh the steps that diffusers' TaylorSeer refreshes."""
    names = [n for n, _ in subject.model.named_modules() if re.fullmatch(r".*\.attn[12]?", n)]
    steps = (0, 1, 2, *range(4, ask.steps, ask.interval + 1))
    return ours.optimized(subject, Explicit(steps), cut=names, forecast=fxcache.Taylor(order=1))


MAGCACHE = Contender("fxcache, MagCache", ours.PACKAGE, magcache)
TAYLOR = Contender(
    "fxcache, Taylor", ours.PACKAGE, ours.at_peers_cut(forecast=fxcache.Taylor(order=1))
)
ATTENTIONS = Contender("fxcache, Taylor, attentions", ours.PACKAGE, taylor_of_attentions)

BASE = (ours.PLAIN, ours.FEWER)
OURS = (ours.SAME_CUT, ours.SAME_CUT_TABLE, ours.AUTOMATIC, ours.TABLE, ours.DEFAULT)
HICACHE = (peer_hicache.HERMITE, peer_hicache.DMD)
OF_DIFFUSERS = (
    peer_diffusers.FIRST_BLOCK,
    peer_diffusers.MAGCACHE,
    peer_diffusers.MAGCACHE_STEPS,
    peer_diffusers.TAYLORSEER,
    peer_diffusers.TAYLORSEER_LITE,
    peer_diffusers.FASTER,
    peer_diffusers.PYRAMID,
    peer_diffusers.SEA,
)
OF_CACHE_DIT = (
    peer_cache_dit.STATIC,
    peer_cache_dit.TAYLOR,
    peer_cache_dit.FOCA,
    peer_cache_dit.DMD,
    peer_cache_dit.MASKS,
    peer_cache_dit.DBCACHE,
    peer_cache_dit.DBPRUNE,
)
TWINS = (ours.FIRST_BLOCK, MAGCACHE, TAYLOR, ATTENTIONS)
PARA_ATTN = (peer_para_attn.FIRST_BLOCK_CACHE,)
TRANSFORMER = (*BASE, *OURS, *OF_CACHE_DIT, *OF_DIFFUSERS, *PARA_ATTN, *HICACHE, *TWINS)
# Of the caches for transformers, those that could work on other models are tried on the U-Net.
UNET = (
    *BASE,
    *OURS,
    peer_deepcache.DEEPCACHE,
    peer_diffusers.FIRST_BLOCK,
    peer_diffusers.TAYLORSEER,
    ATTENTIONS,
    TAYLOR,
    peer_diffusers.FASTER,
    peer_diffusers.PYRAMID,
    peer_cache_dit.STATIC,
    *PARA_ATTN,
    *HICACHE,
)

Make = Callable[[], Subject]
SUBJECTS: dict[str, tuple[Make, tuple[Contender, ...]]] = {
    "U-Net": (models.unet, UNET),
    "FLUX-shaped": (models.flux, TRANSFORMER),
    "Wan-shaped": (models.wan, TRANSFORMER),
    "emoji-sd": (bundled.emoji_sd, UNET),
    "emoji-dit": (bundled.emoji_dit, TRANSFORMER),
}
# Inductor takes a minute for a contender, and one setting of pictures takes seconds.
COMPILED_BY_INDUCTOR = (
    ours.PLAIN,
    ours.SAME_CUT,
    ours.AUTOMATIC,
    ours.TABLE,
    peer_deepcache.DEEPCACHE,
    peer_cache_dit.STATIC,
    peer_cache_dit.UNCONFIGURED,
    peer_diffusers.FIRST_BLOCK,
    peer_diffusers.MAGCACHE_STEPS,
)
COUNTED = (
    *COMPILED_BY_INDUCTOR,
    peer_cache_dit.TAYLOR,
    peer_diffusers.TAYLORSEER_LITE,
    ours.FIRST_BLOCK,
    peer_cache_dit.DBCACHE,
    peer_diffusers.TAYLORSEER,
    peer_diffusers.FASTER,
    peer_diffusers.PYRAMID,
    peer_diffusers.SEA,
    peer_hicache.HERMITE,
)
DRAWN = (
    ours.FEWER,
    ours.SAME_CUT,
    ours.AUTOMATIC,
    ours.DEFAULT,
    ours.TUNED,
    TAYLOR,
    peer_deepcache.DEEPCACHE,
    *OF_CACHE_DIT,
    # Caches of attentions alone do not reach the speed-ups that are compared.
    peer_diffusers.FIRST_BLOCK,
    peer_diffusers.MAGCACHE,
    peer_diffusers.TAYLORSEER_LITE,
    peer_diffusers.SEA,
    *HICACHE,
)
# The contenders of each part that is measured for some subjects only.
# The packages of these are tried in eager mode by other contenders.
LIKE = {ours.TUNED: ours.AUTOMATIC, peer_cache_dit.UNCONFIGURED: peer_cache_dit.STATIC}
CHOSEN = {"graphs": COUNTED, "compiled": COMPILED_BY_INDUCTOR, "quality": DRAWN}
PARTS_OF = {
    "U-Net": ("eager", "graphs", "compiled"),
    "FLUX-shaped": ("eager", "graphs", "compiled"),
    "Wan-shaped": ("eager",),
    "emoji-sd": ("eager", "quality"),
    "emoji-dit": ("eager", "quality"),
}
