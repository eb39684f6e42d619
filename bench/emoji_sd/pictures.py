"""The training pictures: Noto Color Emoji bitmaps, captioned by their Unicode names."""

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_SIZE = 109  # the one size at which the font holds bitmaps
CANVAS = 136  # a glyph's bitmap is 136 x 128 pixels
PICTURE_SIZE = 64

# Everything the font can draw as one code point; the autoencoder learns from all of it.
ALL = ((0x203C, 0x3299), (0x1F004, 0x1FAFF))

# What the denoiser learns: plants and food, animals, faces, vehicles.
TAUGHT = (
    (0x1F330, 0x1F37F),
    (0x1F400, 0x1F43F),
    (0x1F600, 0x1F640),
    (0x1F680, 0x1F6A4),
    (0x1F910, 0x1F917),
    (0x1F920, 0x1F92F),
    (0x1F950, 0x1F96F),
    (0x1F970, 0x1F97A),
    (0x1F980, 0x1F9AE),
)

Ranges = Iterable[tuple[int, int]]


def code_points(ranges: Ranges) -> Iterator[int]:
    """The named code points in the inclusive ``ranges``."""
    for first, last in ranges:
        yield from (c for c in range(first, last + 1) if unicodedata.name(chr(c), ""))


def render(code_point: int, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """The glyph on white, ``PICTURE_SIZE`` square; None where the font has no glyph."""
    glyph = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    draw = ImageDraw.Draw(glyph)
    draw.text((0, (CANVAS - 128) // 2), chr(code_point), font=font, embedded_color=True)
    if glyph.getbbox() is None:
        return None
    page = Image.new("RGBA", glyph.size, (255, 255, 255, 255))
    page.alpha_composite(glyph)
    return page.convert("RGB").resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.LANCZOS)


def load(ranges: Ranges) -> tuple[torch.Tensor, list[str]]:
    """Pictures ``[P, 3, 64, 64]`` in [-1, 1] (float32) and their captions."""
    if not FONT.exists():
        raise SystemExit(f"{FONT} is missing: install the package fonts-noto-color-emoji")
    font = ImageFont.truetype(str(FONT), FONT_SIZE)
    pictures, captions = [], []
    for code_point in code_points(ranges):
        picture = render(code_point, font)
        if picture is not None:
            pictures.append(np.asarray(picture))
            captions.append(unicodedata.name(chr(code_point)).lower())
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return stacked.float() / 127.5 - 1, captions
