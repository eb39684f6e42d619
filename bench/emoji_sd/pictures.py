"""The training images of the denoiser, from a sheet in the repository.

The sheet is one PNG file. It holds the 360 glyphs row by row, and their captions as text. The font
and the sheet are under the SIL Open Font License (``glyphs.OFL.txt``).
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo
from torch import Tensor

from bench.emoji_sd.font import PICTURE_SIZE

SHEET = Path(__file__).with_name("glyphs.png")
COLUMNS = 20
# Keys of the PNG text: one caption a line, and the SHA-256 of the font.
CAPTIONS, FONT_DIGEST = "captions", "font sha256"


def as_tensor(glyphs: list[Image.Image]) -> Tensor:
    """Return the images as ``[P, 3, 64, 64]`` in [-1, 1] (float32)."""
    stacked = torch.from_numpy(np.stack([np.asarray(glyph) for glyph in glyphs]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def tile(index: int) -> tuple[int, int, int, int]:
    """Return the left, upper, right and lower edge of an image on the sheet, in pixels."""
    row, column = divmod(index, COLUMNS)
    left, upper = column * PICTURE_SIZE, row * PICTURE_SIZE
    return left, upper, left + PICTURE_SIZE, upper + PICTURE_SIZE


def write_sheet(glyphs: dict[str, Image.Image], font_digest: str, file: Path) -> None:
    """Write images with captions, and the digest of their font, as one sheet."""
    rows = -(-len(glyphs) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * PICTURE_SIZE, rows * PICTURE_SIZE), "white")
    for index, glyph in enumerate(glyphs.values()):
        sheet.paste(glyph, tile(index))
    info = PngInfo()
    info.add_text(CAPTIONS, "\n".join(glyphs), zip=True)
    info.add_text(FONT_DIGEST, font_digest)
    sheet.save(file, optimize=True, pnginfo=info)


def read_sheet(file: Path = SHEET) -> dict[str, Image.Image]:
    """Return the images of a sheet by their captions, in the order of the sheet."""
    with PngImageFile(file) as sheet:
        sheet.load()
        captions = str(sheet.text[CAPTIONS]).splitlines()
        return {caption: sheet.crop(tile(index)) for index, caption in enumerate(captions)}


def read_font_digest(file: Path = SHEET) -> str:
    """Return the SHA-256 of the font of a sheet."""
    with PngImageFile(file) as sheet:
        sheet.load()
        return str(sheet.text[FONT_DIGEST])


def training_set() -> tuple[Tensor, list[str]]:
    """Load the training set of the bundled models.

    Returns:
        Images ``[360, 3, 64, 64]`` in [-1, 1] (float32), and their captions.
    """
    glyphs = read_sheet()
    return as_tensor(list(glyphs.values())), list(glyphs)
