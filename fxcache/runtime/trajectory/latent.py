"""Distinguishes trajectories by their latents.

Latents of consecutive steps in one trajectory are nearly parallel. The latents of another request,
of another tile or of a new run are not. ``python -m bench.latents`` measures the cosines for each
solver and number of steps.

Latents of integers are tokens, whose numbers are names: see ``tokens.py``.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fxcache.runtime.trajectory.tokens import compare_tokens

SAMPLE = 1024  # the greatest number of elements to compare


class Likeness(NamedTuple):
    """How a latent compares with an earlier one.

    Attributes:
        cosine: The cosine of the two latents, over the elements that differ; 1 if none differs.
            Constant elements, such as a mask or an image to edit, carry no information. For tokens,
            the share of those shown before that stay.
        elements: The number of elements that differ.
        chance: For tokens, the share that those of another request may reach by chance; None for
            numbers.
    """

    cosine: float
    elements: int
    chance: float | None = None

    @property
    def identical(self) -> bool:
        """Whether no element differs."""
        return self.elements == 0


UNLIKE = Likeness(0.0, SAMPLE)  # for latents that cannot be compared


def sample_of(latent: Tensor, *others: Tensor) -> Tensor:
    """Return a copy of at most ``SAMPLE`` evenly spaced elements of each tensor, on its device.

    Every call takes a sample, which costs one small kernel. Gradients are disabled then.

    Args:
        latent: The latent, or its first tensor.
        others: Its other tensors. Some of them may be references, which no step changes.
    """
    if others:
        return torch.cat([sample_of(tensor) for tensor in (latent, *others)])
    count = latent.numel()
    stride = max(1, count // SAMPLE)
    taken = min(SAMPLE, count)
    if latent.is_contiguous():
        return latent.as_strided((taken,), (stride,)).clone()
    return latent.reshape(-1)[: taken * stride : stride].clone()


@torch.no_grad()
def likenesses(known: Sequence[Tensor], now: Tensor) -> list[Likeness]:
    """Compare the sample of a call with known samples. The device is read once.

    Args:
        known: The known samples, ``[S]`` each.
        now: The sample of the call, ``[S]``.
    """
    comparable = [i for i, sample in enumerate(known) if alike(sample, now)]
    results = [UNLIKE] * len(known)
    if not comparable:
        return results
    if not now.is_floating_point() and not now.is_complex():
        read = torch.stack([*(known[i] for i in comparable), now]).cpu()
        for i, tokens in zip(comparable, read, strict=False):
            results[i] = Likeness(*compare_tokens(tokens, read[-1]))
        return results
    then, latest = torch.stack([known[i] for i in comparable]).float(), now.float()
    differs = then != latest
    then, latest = then * differs, latest * differs
    sums = [(then * latest).sum(1), (then * then).sum(1), (latest * latest).sum(1), differs.sum(1)]
    for i, (product, first, second, count) in zip(
        comparable, torch.stack(sums, 1).tolist(), strict=True
    ):
        size = math.sqrt(first * second)
        results[i] = Likeness(product / size if size else float(not count), int(count))
    return results


def alike(first: Tensor, second: Tensor) -> bool:
    """Return whether two samples can be compared element by element."""
    return (first.shape, first.dtype, first.device) == (second.shape, second.dtype, second.device)
