"""The same pictures with and without fxcache: times, likeness, and one sheet to look at."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fxcache.runtime.record import Stopwatch

if TYPE_CHECKING:
    from PIL.Image import Image

TILE = 128
MARGIN = 8
LINE = 14


@dataclass(frozen=True)
class Likeness:
    """How close two rows of pictures are, averaged over pairs: PSNR in dB, SSIM up to 1."""

    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class Comparison:
    """What ``fxcache run --compare`` measured.

    Times are medians over the denoiser's calls of one kind, in milliseconds. ``speedup``: a run's
    time in the denoiser without fxcache over that with it, from these medians (``reuse_ms`` is
    None where every step refreshed). ``ideal_speedup``: the same from FLOPs.
    """

    steps: int
    refreshes: int
    original_ms: float
    refresh_ms: float
    reuse_ms: float | None
    speedup: float
    ideal_speedup: float
    share_saved: float
    cached_bytes: int
    psnr_db: float
    ssim: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@contextmanager
def timed_calls(model: nn.Module) -> Iterator[list[Stopwatch]]:
    """Stopwatches of ``model``'s calls inside the block."""
    watches: list[Stopwatch] = []

    def start(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = (v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor))
        watches.append(Stopwatch(next(tensors).device))

    def stop(*_: Any) -> None:
        watches[-1].stop()

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
    """Median time of a call: one that the machine interrupted does not count."""
    return median(w.elapsed_ms or 0.0 for w in watches)


def likeness(originals: Sequence["Image"], others: Sequence["Image"]) -> Likeness:
    """PSNR and SSIM of 8-bit RGB pictures; identical ones count as 100 dB."""
    import numpy as np
    from skimage.metrics import mean_squared_error, structural_similarity

    psnr, ssim = [], []
    for first, second in zip(originals, others, strict=True):
        a, b = np.asarray(first.convert("RGB")), np.asarray(second.convert("RGB"))
        error = float(mean_squared_error(a, b))
        psnr.append(min(100.0, 10 * np.log10(255**2 / error)) if error else 100.0)
        ssim.append(float(structural_similarity(a, b, channel_axis=2, data_range=255)))
    return Likeness(fmean(psnr), fmean(ssim))


def sheet(rows: Mapping[str, Sequence["Image"]], captions: Sequence[str]) -> "Image":
    """One picture: a labelled row of tiles for each entry of ``rows``, captions on top."""
    from PIL import Image, ImageDraw

    columns = max(map(len, rows.values()))
    tile = max(TILE, *(max(i.size) for row in rows.values() for i in row))
    step = tile + MARGIN
    size = (columns * step + MARGIN, LINE + 2 * MARGIN + len(rows) * (step + LINE))
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    for column, caption in enumerate(captions[:columns]):
        draw.text((MARGIN + column * step, MARGIN), caption, fill="black")
    for index, (label, row) in enumerate(rows.items()):
        top = LINE + 2 * MARGIN + index * (step + LINE)
        draw.text((MARGIN, top), label, fill="#444444")
        for column, image in enumerate(row):
            scaled = image.convert("RGB").resize((tile, tile), Image.Resampling.LANCZOS)
            page.paste(scaled, (MARGIN + column * step, top + LINE))
    return page
