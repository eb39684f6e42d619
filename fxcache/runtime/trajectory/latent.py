"""Telling trajectories apart by their latents.

Neighbouring latents of one trajectory are nearly parallel. Those of another request, another tile
or a new start are not. ``python -m bench.latents`` measures by how much, for each solver and number
of steps.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SAMPLE = 1024  # elements


class Likeness(NamedTuple):
    """How a latent compares with an earlier one.

    Attributes:
        cosine: Between the two, over the elements that differ; 1 where none does. Elements that
            stay as they are (a mask, an image that is edited) tell nothing of the trajectory.
        elements: How many differ.
    """

    cosine: float
    elements: int

    @property
    def identical(self) -> bool:
        """Whether no element differs."""
        return self.elements == 0


UNLIKE = Likeness(0.0, SAMPLE)  # of latents that cannot be compared


def sample_of(latent: Tensor) -> Tensor:
    """At most ``SAMPLE`` elements of ``latent``, evenly spaced: a copy on its device.

    It is taken at every call: one small kernel. No gradients are wanted then.
    """
    count = latent.numel()
    stride = max(1, count // SAMPLE)
    taken = min(SAMPLE, count)
    if latent.is_contiguous():
        return latent.as_strided((taken,), (stride,)).clone()
    return latent.reshape(-1)[: taken * stride : stride].clone()


@torch.no_grad()
def likenesses(known: Sequence[Tensor], now: Tensor) -> list[Likeness]:
    """How the sample ``now`` compares with each ``known`` one; one copy from the device.

    Args:
        known: Samples, ``[S]`` each.
        now: The sample at hand, ``[S]``.
    """
    comparable = [i for i, sample in enumerate(known) if alike(sample, now)]
    found = [UNLIKE] * len(known)
    if not comparable:
        return found
    then, latest = torch.stack([known[i] for i in comparable]).float(), now.float()
    differs = then != latest
    then, latest = then * differs, latest * differs
    sums = [(then * latest).sum(1), (then * then).sum(1), (latest * latest).sum(1), differs.sum(1)]
    for i, (product, first, second, count) in zip(
        comparable, torch.stack(sums, 1).tolist(), strict=True
    ):
        size = math.sqrt(first * second)
        found[i] = Likeness(product / size if size else float(not count), int(count))
    return found


def alike(first: Tensor, second: Tensor) -> bool:
    """Whether two samples can be compared element by element."""
    return (first.shape, first.dtype, first.device) == (second.shape, second.dtype, second.device)
