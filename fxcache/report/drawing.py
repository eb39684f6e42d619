"""Creates and saves matplotlib figures, without matplotlib's global state."""

import importlib
from pathlib import Path
from typing import Any

from fxcache.errors import ModelFileError


def figure(width: float, height: float) -> Any:
    """Return a matplotlib figure. Width and height are in inches.

    Raises:
        ModelFileError: matplotlib is not installed.
    """
    try:
        drawing = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ModelFileError(
            f"matplotlib cannot be imported: {error}",
            where="drawing a plot",
            remedy="install the optional dependencies: pip install 'fxcache[diffusers]'",
        ) from error
    return drawing.Figure(figsize=(width, height), layout="constrained")


def save(page: Any, out: Path) -> None:
    """Write the figure; ModelFileError if the file cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        page.savefig(out, dpi=120)
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"the picture cannot be written: {error}",
            where=str(out),
            remedy="pass a name that ends in .png, .svg or .pdf, in a writable folder",
        ) from error
