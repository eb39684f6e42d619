"""Writes ``docs/compatibility.md``, section by section, from stored results."""

import argparse
import json
import logging
import warnings
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import torch

import bench.foreign.packages_section
import bench.reports.section

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"
INTRODUCTION = """\
What fxcache was tried on outside of diffusers, and in the situations that users of other caches \
reported. Made by `make compatibility`. The classes of diffusers are on [Which \
denoisers](coverage.md), [Pipelines](pipelines.md) and [Features of pipelines](features.md)."""

# The sections of the page: each heading, the stored results below it, and what writes their text.
SECTIONS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "Models of other packages": ("foreign", bench.foreign.packages_section.text),
    "Public reports": ("reports", bench.reports.section.text),
}


def path(name: str) -> Path:
    return RESULTS / f"{name}.json"


def stored(name: str) -> Mapping[str, Any]:
    """Return the content of ``bench/results/NAME.json``."""
    return json.loads(path(name).read_text("utf-8"))


def store(name: str, data: Mapping[str, Any]) -> None:
    """Write ``bench/results/NAME.json``."""
    path(name).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def arguments(description: str | None, noun: str) -> argparse.Namespace:
    """Read the command line of a section's measurement, and keep other packages quiet.

    Args:
        description: The description of the command.
        noun: What it measures, in the plural.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("words", nargs="*", help=f"only {noun} whose names contain one of these")
    parser.add_argument("--resume", action="store_true", help=f"keep the existing {noun}")
    found = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    return found


def known(name: str, key: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the stored results under ``key`` that a measurement with these arguments keeps."""
    keeps = given.resume or given.words
    return dict(stored(name)[key]) if keeps and path(name).exists() else {}


def is_wanted(name: str, given: argparse.Namespace, measured: Container[str]) -> bool:
    """Return whether to measure what has this name."""
    return any(word in name for word in given.words) if given.words else name not in measured


def document() -> str:
    """Return the text of the page."""
    parts = ["# Compatibility", INTRODUCTION]
    for heading, (results, text) in SECTIONS.items():
        parts += [f"## {heading}", text(stored(results))]
    return "\n\n".join(parts) + "\n"


def write() -> None:
    """Write the page."""
    PAGE.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    write()
