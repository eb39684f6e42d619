"""Metrics of images: pairwise against the uncached run, and as a set against the glyphs."""

from statistics import fmean
from typing import NamedTuple

import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from bench.quality.classifier import Classifier

MOST_DB = 100.0  # the PSNR of identical images
RESAMPLES = 200
LOW, HIGH = 0.025, 0.975  # the quantiles around 95% of the resamples


class Interval(NamedTuple):
    """A value and its interval."""

    value: float
    low: float
    high: float


class Likeness(NamedTuple):
    """Means over pairs of images: PSNR in dB, and SSIM, which is at most 1."""

    psnr_db: float
    ssim: float


def likeness(originals: Tensor, others: Tensor) -> Likeness:
    """Compare images ``[N, H, W, C]`` in [0, 1], not rounded to bytes."""
    psnr, ssim = [], []
    for a, b in zip(originals.numpy(), others.numpy(), strict=True):
        equal = bool((a == b).all())
        found = MOST_DB if equal else float(peak_signal_noise_ratio(a, b, data_range=1.0))
        psnr.append(min(MOST_DB, found))
        ssim.append(float(structural_similarity(a, b, channel_axis=2, data_range=1.0)))
    return Likeness(fmean(psnr), fmean(ssim))


@torch.no_grad()
def features(classifier: Classifier, images: Tensor) -> Tensor:
    """Return the features ``[N, F]`` in float64 of images ``[N, H, W, C]`` in [0, 1]."""
    batches = (2 * images.permute(0, 3, 1, 2) - 1).split(64)
    return torch.cat([classifier.features(batch) for batch in batches]).double()


def root(matrix: Tensor) -> Tensor:
    """Return the square root of a symmetric positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet(first: Tensor, second: Tensor) -> float:
    """Return the Fréchet distance of features ``[N, F]``.

    It is ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½) (Heusel et al., 1706.08500, equation 6, with
    the trace of (Σ₁Σ₂)^½ computed from a symmetric product).
    """
    means = first.mean(0), second.mean(0)
    one, two = torch.cov(first.T), torch.cov(second.T)
    half = root(one)
    cross = torch.linalg.eigvalsh(half @ two @ half).clamp(min=0).sqrt().sum()
    return float((means[0] - means[1]).square().sum() + one.trace() + two.trace() - 2 * cross)


def frechet_interval(drawn: Tensor, reference: Tensor, resamples: int = RESAMPLES) -> Interval:
    """Return the distance with its bootstrap percentile interval.

    Captions are resampled. Each keeps its image in ``drawn`` and its image in ``reference``, so
    that both sets always have the same captions.
    """
    generator = torch.Generator().manual_seed(0)
    found = torch.empty(resamples, dtype=torch.float64)
    for index in range(resamples):
        chosen = torch.randint(len(drawn), (len(drawn),), generator=generator)
        found[index] = frechet(drawn[chosen], reference[chosen])
    low, high = found.quantile(torch.tensor([LOW, HIGH], dtype=torch.float64)).tolist()
    return Interval(frechet(drawn, reference), low, high)
