"""Compares images with and without fxcache: times and similarity."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fxcache._torch import compiled_calls_wrapped, is_compiled
from fxcache.runtime.record import Stopwatch

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Likeness:
    """The similarity of two rows of images, averaged over pairs.

    Attributes:
        psnr_db: PSNR in dB.
        ssim: SSIM, at most 1.
    """

    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class Comparison:
    """The measurements of ``fxcache run --compare``.

    Attributes:
        steps: The number of denoising steps.
        refreshes: The number of refresh steps.
        original_ms: The median time of a denoiser call without fxcache, in milliseconds.
        refresh_ms: The median time of a refresh step, in milliseconds.
        reuse_ms: The median time of a reuse step, in milliseconds; None if there is none.
        speedup: The denoiser's time of a run without fxcache, divided by that with fxcache: the
            median over pairs of runs that took turns.
        speedup_low: The least of these ratios.
        speedup_high: The greatest.
        pairs: Their number.
        ideal_speedup: The same ratio, computed from FLOPs.
        share_saved: The share of FLOPs that a reuse step saves, 0 to 1.
        cached_bytes: The size of all cached values in bytes.
        psnr_db: PSNR of the images in dB.
        ssim: SSIM of the images, at most 1.
    """

    steps: int
    refreshes: int
    original_ms: float
    refresh_ms: float
    reuse_ms: float | None
    speedup: float
    speedup_low: float
    speedup_high: float
    pairs: int
    ideal_speedup: float
    share_saved: float
    cached_bytes: int
    psnr_db: float
    ssim: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@contextmanager
def timed_calls(model: nn.Module) -> Iterator[list[Stopwatch]]:
    """Time each call of ``model`` inside the block. Yields the list of stopwatches.

    Calls that torch.compile compiles are timed from outside.
    """
    watches: list[Stopwatch] = []

    def start(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = (v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor))
        watches.append(Stopwatch(next(tensors).device))

    def stop(*_: Any) -> None:
        watches[-1].stop()

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*args: Any, **kwargs: Any) -> Any:
            start(model, args, kwargs)
            result = call(*args, **kwargs)
            stop()
            return result

        return timed_call

    if is_compiled(model):
        with compiled_calls_wrapped(model, timed):
            yield watches
        return

    handles = [
        model.register_forward_pre_hook(start, with_kwargs=True),
        model.register_forward_hook(stop),
    ]
    try:
        yield watches
    finally:
        for handle in handles:
            handle.remove()


def typical_ms(watches: Sequence[Stopwatch]) -> float:
    """Return the median time of a call in milliseconds, which ignores single slow calls."""
    return median(w.elapsed_ms or 0.0 for w in watches)


def likeness(originals: Sequence["Image"], others: Sequence["Image"]) -> Likeness:
    """PSNR and SSIM of 8-bit RGB images. Identical images count as 100 dB."""
    import numpy as np
    from skimage.metrics import mean_squared_error, structural_similarity

    psnr, ssim = [], []
    for first, second in zip(originals, others, strict=True):
        a, b = np.asarray(first.convert("RGB")), np.asarray(second.convert("RGB"))
        error = float(mean_squared_error(a, b))
        psnr.append(min(100.0, 10 * np.log10(255**2 / error)) if error else 100.0)
        ssim.append(float(structural_similarity(a, b, channel_axis=2, data_range=255)))
    return Likeness(fmean(psnr), fmean(ssim))
