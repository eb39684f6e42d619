"""What the pictures share: a figure that belongs to nobody else, saved."""

import importlib
from pathlib import Path
from typing import Any

from fxcache.errors import ModelFileError


def figure(width: float, height: float) -> Any:
    """A matplotlib figure in inches, of no global state; ModelFileError without matplotlib."""
    try:
        drawing = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ModelFileError(
            f"matplotlib cannot be imported: {error}",
            where="drawing a picture",
            remedy="install what pictures need: pip install 'fxcache[diffusers]'",
        ) from error
    return drawing.Figure(figsize=(width, height), layout="constrained")


def save(page: Any, out: Path) -> None:
    """Write the figure; ModelFileError where that cannot be."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        page.savefig(out, dpi=120)
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"the picture cannot be written: {error}",
            where=str(out),
            remedy="end the name in .png, .svg or .pdf, in a folder that can be written to",
        ) from error
