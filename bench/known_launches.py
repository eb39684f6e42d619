"""Keeps which kernels Inductor chose for the graphs of the bundled models.

The choice takes most of a gate's time, and depends on nothing but the graphs, the versions of torch
and Triton, and the code that asks for it. ``python -m bench.gate --update`` chooses anew and writes
the file. Tests look there first, and let Inductor choose for graphs that the file does not have.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor

from fxcache.gate.exact import launches, measure
from fxcache.gate.expected import minor_version
from fxcache.program import value_of
from fxcache.rewrite.variants import Variants

FOLDER = Path(__file__).parent / "expected" / "launches"
PACKAGE = Path(launches.__file__).parents[2]
ASKING = (Path(launches.__file__), *sorted((PACKAGE / "_torch").glob("*.py")))
Chosen = dict[str, Any]  # by the digest of the graphs of a capture


def known_file() -> Path:
    """Return the file for this version of torch."""
    return FOLDER / f"torch{minor_version()}.json"


def digest_of(variants: Variants) -> str:
    """Return a digest of all that Inductor's choice depends on."""
    found = hashlib.sha256(f"{torch.__version__} {triton.__version__}".encode())
    for file in ASKING:
        found.update(file.read_bytes())
    for name, variant in sorted(variants.named_graphs().items()):
        found.update(f"{name} {variant.buffers}".encode())
        for node in variant.module.graph.nodes:
            values = [value_of(node)]
            if node.op == "get_attr":
                values = [getattr(variant.module, str(node.target))]
            kinds = [kind_of(value) for value in values]
            found.update(f"{node.format_node()} {node.args} {node.kwargs} {kinds}".encode())
    return found.hexdigest()


def kind_of(value: Any) -> str:
    """Describe a value without its data."""
    if isinstance(value, list | tuple):
        return str([kind_of(item) for item in value])
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {tuple(value.stride())} {value.dtype}"
    return str(value)


@contextmanager
def choosing(look_up: Callable[[Variants], Any]) -> Iterator[None]:
    """Let gates inside the block ask ``look_up`` for the kernels of a capture."""
    with patch.object(measure, "launches_of", look_up):
        yield


@contextmanager
def recalled() -> Iterator[None]:
    """Let gates inside the block look into the file first."""
    file = known_file()
    known: Chosen = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def look_up(variants: Variants) -> Any:
        found = known.get(digest_of(variants))
        return launches.launches_of(variants) if found is None else found

    with choosing(look_up):
        yield


@contextmanager
def recorded() -> Iterator[None]:
    """Write what Inductor chooses inside the block to the file, in place of what it has."""
    chosen: Chosen = {}

    def look_up(variants: Variants) -> Any:
        found = chosen[digest_of(variants)] = launches.launches_of(variants)
        return found

    with choosing(look_up):
        yield
    if chosen:
        FOLDER.mkdir(parents=True, exist_ok=True)
        text = json.dumps(chosen, indent=1, sort_keys=True)
        known_file().write_text(text + "\n", encoding="utf-8")
