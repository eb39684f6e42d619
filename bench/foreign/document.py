"""Writes ``docs/compatibility.md``, section by section, from stored results."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.foreign import packages_section

RESULTS = Path(__file__).parents[1] / "results" / "foreign.json"
PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
INTRODUCTION = """\
What fxcache was tried on outside of diffusers. Made by `make compatibility`. The classes of \
diffusers are on [Which denoisers](coverage.md), [Pipelines](pipelines.md) and [Features of \
pipelines](features.md)."""

# The sections of the page: each heading, and what writes the text below it. A further section is
# one line here.
SECTIONS: dict[str, Callable[[], str]] = {
    "Models of other packages": lambda: packages_section.text(stored()),
}


def stored() -> Mapping[str, Any]:
    """Return the content of ``bench/results/foreign.json``."""
    return json.loads(RESULTS.read_text("utf-8"))


def document() -> str:
    """Return the text of the page."""
    parts = ["# Compatibility", INTRODUCTION]
    for heading, text in SECTIONS.items():
        parts += [f"## {heading}", text()]
    return "\n\n".join(parts) + "\n"


def write() -> None:
    """Write the page."""
    PAGE.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    write()
