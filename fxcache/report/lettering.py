"""Draws text in any script, with a font that has each character."""

import importlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from fxcache.errors import ModelFileError

SIZE = 12  # of letters, in pixels
LINE = 16  # from one line of text to the next, in pixels
MORE = "…"
FIRST = "DejaVuSans.ttf"  # comes with matplotlib
PLACEHOLDERS = "Last Resort"  # a font that draws the same box for many characters


class Lettering:
    """Measures and draws text. A character that no font of the machine has is drawn as its code."""

    def width(self, text: str) -> float:
        """Return the width of ``text`` in pixels."""
        return sum(opened(font).getlength(part) for font, part in runs(text))

    def wrap(self, text: str, width: int, most: int = 2) -> list[str]:
        """Break ``text`` into lines that fit.

        Args:
            text: The text.
            width: The greatest width of a line in pixels.
            most: The greatest number of lines. If there are more, the last one ends with an
                ellipsis.
        """
        lines, line = [], ""
        for word in text.split():
            for piece in self._pieces(word, width):
                longer = f"{line} {piece}" if line and piece[0] == word[0] else line + piece
                if line and self.width(longer) > width:
                    lines.append(line)
                    longer = piece
                line = longer
        lines.append(line)
        if len(lines) > most:
            lines = [*lines[: most - 1], self._shortened(" ".join(lines[most - 1 :]), width)]
        return lines

    def _pieces(self, word: str, width: int) -> Iterator[str]:
        """Yield ``word`` in pieces that fit in a line."""
        piece = ""
        for character in word:
            if piece and self.width(piece + character) > width:
                yield piece
                piece = ""
            piece += character
        if piece:
            yield piece

    def _shortened(self, text: str, width: int) -> str:
        while text and self.width(text + MORE) > width:
            text = text[:-1]
        return text.rstrip() + MORE

    def write(self, draw: Any, place: tuple[int, int], lines: Sequence[str], fill: str) -> None:
        """Draw ``lines`` from ``place``, their upper left corner."""
        for index, line in enumerate(lines):
            x: float = place[0]
            for font, part in runs(line):
                chosen = opened(font)
                at = (x, place[1] + index * LINE + SIZE)
                draw.text(at, part, font=chosen, fill=fill, anchor="ls", embedded_color=True)
                x += chosen.getlength(part)


def runs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the longest parts of ``text`` that one font can draw, each with the font's file."""
    known = [(font_for(c) or fonts()[0], c if font_for(c) else coded(c)) for c in text]
    for font, parts in groupby(known, key=lambda pair: pair[0]):
        yield font, "".join(part for _, part in parts)


def coded(character: str) -> str:
    r"""Return the code of a character, such as ``\u65e5``."""
    return character.encode("ascii", "backslashreplace").decode()


@lru_cache(maxsize=4096)
def font_for(character: str) -> str | None:
    """Return the file of the first font that has the character; None if no font has it."""
    return next((f for f in fonts() if ord(character) in covered(f) and usable(f)), None)


@lru_cache(maxsize=1)
def fonts() -> tuple[str, ...]:
    """Return the files of all fonts: first the one that comes with matplotlib."""
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
        manager: Any = importlib.import_module("matplotlib.font_manager")
    except ImportError as error:
        raise ModelFileError(
            f"matplotlib cannot be imported: {error}",
            where="drawing captions",
            remedy="install the optional dependencies: pip install 'fxcache[diffusers]'",
        ) from error
    first = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FIRST)
    others = {f.fname for f in manager.fontManager.ttflist if PLACEHOLDERS not in f.name}
    return (first, *sorted(others - {first}))


@lru_cache(maxsize=256)
def covered(font: str) -> frozenset[int]:
    """Return the codes of the characters that a font has."""
    reader: Any = importlib.import_module("matplotlib.ft2font")
    try:
        return frozenset(reader.FT2Font(font).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(maxsize=256)
def usable(font: str) -> bool:
    """Return whether the font has letters of this size; fonts of bitmaps may not."""
    try:
        opened(font)
    except OSError:
        return False
    return True


@lru_cache(maxsize=256)
def opened(font: str) -> Any:
    """Return the font, for drawing."""
    return importlib.import_module("PIL.ImageFont").truetype(font, SIZE)
