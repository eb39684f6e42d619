"""Writes graphs as numbered, runnable Python files."""

import re
from pathlib import Path

from fxcache.errors import ModelFileError
from fxcache.program import copy_graph
from fxcache.rewrite.draft import Draft
from fxcache.rewrite.graph_module import graph_module

HEADER = """# {title}
import operator

import torch
from torch import device, inf, nan

"""


def dump(draft: Draft, folder: str, name: str, after: str) -> None:
    """Write the graph of ``draft`` to ``folder``, with the next number.

    The file defines one module class. Its weights are attributes whose names the comments show.

    Raises:
        ModelFileError: The folder cannot be created.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(
            f"graphs cannot be written there: {error}",
            where=f"FXCACHE_DUMP={folder}",
            remedy="set FXCACHE_DUMP to a folder that can be created, or unset it",
        ) from error
    numbers = [int(m[1]) for p in place.iterdir() if (m := re.match(r"(\d+)_", p.name))]
    title = identifier(f"{draft.program.model}_{name}")
    file = f"{max(numbers, default=-1) + 1:03d}_{title}_{identifier(after)}.py"
    graph, _ = copy_graph(draft.graph)
    module = graph_module(graph, draft.program.weights, title, draft.weights)
    source = module.print_readable(print_output=False, include_device=True)
    header = HEADER.format(title=f"{name} of {draft.program.model}, after: {after}")
    (place / file).write_text(f"{header}{source}\n", encoding="utf-8")


def identifier(text: str) -> str:
    """Return ``text`` as a valid name of a class."""
    return re.sub(r"\W+", "_", text)
