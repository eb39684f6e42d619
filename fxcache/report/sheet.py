"""A sheet of pictures: one labelled row for each setting, and a caption above each column."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fxcache.report.lettering import LINE, Lettering

if TYPE_CHECKING:
    from PIL.Image import Image

TILE = 128
MARGIN = 8
LEAST_WIDTH = 420  # so that the labels of rows have room beside a single picture
CAPTION_LINES, LABEL_LINES = 3, 3


def sheet(rows: Mapping[str, Sequence["Image"]], captions: Sequence[str]) -> "Image":
    """Return one image with a labelled row of tiles for each entry of ``rows``, captions on top.

    Texts are broken into lines. What does not fit ends with an ellipsis.

    Args:
        rows: The pictures of each row, by its label.
        captions: The caption of each column, in any script.
    """
    from PIL import Image, ImageDraw

    letters = Lettering()
    columns = max(map(len, rows.values()))
    tile = max(TILE, *(max(i.size) for row in rows.values() for i in row))
    step = tile + MARGIN
    width = max(LEAST_WIDTH, columns * step + MARGIN)
    heads = [letters.wrap(text, tile, CAPTION_LINES) for text in captions[:columns]]
    labels = [letters.wrap(text, width - 2 * MARGIN, LABEL_LINES) for text in rows]
    top = 2 * MARGIN + LINE * max(map(len, heads), default=0)
    height = top + sum(len(lines) * LINE + step for lines in labels)
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    for column, lines in enumerate(heads):
        letters.write(draw, (MARGIN + column * step, MARGIN), lines, "black")
    for lines, row in zip(labels, rows.values(), strict=True):
        letters.write(draw, (MARGIN, top), lines, "#444444")
        top += len(lines) * LINE
        for column, image in enumerate(row):
            scaled = image.convert("RGB").resize((tile, tile), Image.Resampling.LANCZOS)
            page.paste(scaled, (MARGIN + column * step, top))
        top += step
    return page
