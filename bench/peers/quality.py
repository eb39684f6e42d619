"""What each contender does to the pictures of a bundled model, at several speeds."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bench.peers.contender import Contender
from bench.peers.counting import computed, flops_of
from bench.peers.subject import Ask, Live, Subject, sample
from bench.peers.timing import Row, told
from bench.quality.metrics import likeness

INTERVALS = (2, 3, 5)


def pictures(subject: Subject, live: Live, ask: Ask) -> Tensor:
    """Return the pictures of all requests, ``[N, H, W, 3]`` in [0, 1]."""
    latents = [sample(subject, live, ask, request=request) for request in subject.requests]
    return torch.cat([subject.decode(latent) for latent in latents]).permute(0, 2, 3, 1)


class Originals(NamedTuple):
    """The uncached pictures of a subject, and the FLOPs of a run."""

    pictures: Tensor
    flops: int


_originals: dict[str, Originals] = {}


def originals_of(subject: Subject, plain: Contender, steps: int) -> Originals:
    """Return the uncached pictures, which are made once."""
    if subject.name not in _originals:
        ask = Ask(steps)
        with plain.attach(subject, ask) as live:
            found = pictures(subject, live, ask)
            _originals[subject.name] = Originals(found, sum(flops_of(subject, live, ask)))
    return _originals[subject.name]


def quality_rows(
    make: Callable[[], Subject], contender: Contender, plain: Contender, steps: int
) -> list[Row]:
    """Return the PSNR and SSIM of a contender against the uncached pictures, by interval."""
    originals = originals_of(make(), plain, steps)
    return [one_row(make(), contender, Ask(steps, n), originals) for n in INTERVALS]


def one_row(subject: Subject, contender: Contender, ask: Ask, originals: Originals) -> Row:
    try:
        with contender.attach(subject, ask) as live:
            close = likeness(originals.pictures, pictures(subject, live, ask))
            flops = flops_of(subject, live, ask)
            setting = live.setting
    except Exception as error:  # any error of a peer is its result
        return {"interval": ask.interval, "error": told(error)}
    return {
        "interval": ask.interval,
        "setting": setting,
        "computed": len(computed(flops)),
        "ideal_speedup": originals.flops / sum(flops),
        **close._asdict(),
    }
