"""Renders glyphs of Noto Color Emoji from the font. Their captions are their Unicode names.

Only the training of the autoencoder and ``python -m bench.emoji_sd sheet`` need the font. All other
code reads the sheet (:mod:`bench.emoji_sd.pictures`).
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_SIZE = 109  # the only size of the font's bitmaps
CANVAS = 136  # a glyph's bitmap is 136 x 128 pixels
PICTURE_SIZE = 64

# All glyphs of single code points. The autoencoder is trained on them.
ALL = ((0x203C, 0x3299), (0x1F004, 0x1FAFF))

# The glyphs that the denoiser is trained on: plants, food, animals, faces and vehicles.
TRAINING_SET = (
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


def open_font() -> ImageFont.FreeTypeFont | None:
    """Open the font; return None if it cannot be read."""
    try:
        return ImageFont.truetype(str(FONT), FONT_SIZE)
    except OSError:
        return None


def digest() -> str:
    """Return the SHA-256 of the font's file, because glyphs differ between versions."""
    return hashlib.sha256(FONT.read_bytes()).hexdigest()


def code_points(ranges: Ranges) -> Iterator[int]:
    """Yield the named code points in the inclusive ``ranges``."""
    for first, last in ranges:
        yield from (c for c in range(first, last + 1) if unicodedata.name(chr(c), ""))


def render(code_point: int, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """Render a glyph on white, ``PICTURE_SIZE`` square; return None if the font lacks it."""
    glyph = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    draw = ImageDraw.Draw(glyph)
    draw.text((0, (CANVAS - 128) // 2), chr(code_point), font=font, embedded_color=True)
    if glyph.getbbox() is None:
        return None
    page = Image.new("RGBA", glyph.size, (255, 255, 255, 255))
    page.alpha_composite(glyph)
    return page.convert("RGB").resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.LANCZOS)


def render_all(ranges: Ranges) -> dict[str, Image.Image]:
    """Return the font's glyphs in ``ranges`` by their captions.

    Raises:
        SystemExit: The font is not installed.
    """
    font = open_font()
    if font is None:
        raise SystemExit(f"{FONT} is missing: install the package fonts-noto-color-emoji")
    rendered = {c: render(c, font) for c in code_points(ranges)}
    return {unicodedata.name(chr(c)).lower(): glyph for c, glyph in rendered.items() if glyph}
