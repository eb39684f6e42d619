"""Program and plan -> two variants: runs the passes, times, verifies and dumps each."""

import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import fx

from fxcache.errors import ModelFileError
from fxcache.partition.cut import CutPlan
from fxcache.program import Program, graph_module
from fxcache.rewrite.cached_skip import cached_skip
from fxcache.rewrite.full import full
from fxcache.rewrite.verify import verify

logger = logging.getLogger("fxcache.rewrite")

Pass = Callable[[Program, CutPlan], fx.Graph]
PASSES: dict[str, Pass] = {"full": full, "cached_skip": cached_skip}


@dataclass(frozen=True, eq=False)
class Variants:
    """The two graphs of one program, callable.

    ``full(*tensors) -> (*outputs, *cached)``; ``cached_skip(*tensors, *cached) -> outputs``, the
    tensors being the program's inputs in order. Weights are shared with the module.
    """

    program: Program
    plan: CutPlan
    inputs: str
    full: fx.GraphModule
    cached_skip: fx.GraphModule
    num_outputs: int


def rewrite(program: Program, plan: CutPlan, inputs: str) -> Variants:
    """Both variants of ``program`` under ``plan``, verified; ``inputs`` describes the call."""
    modules = {name: run(name, p, program, plan) for name, p in PASSES.items()}
    return Variants(program, plan, inputs, **modules, num_outputs=len(program.outputs))


def run(name: str, rewriting: Pass, program: Program, plan: CutPlan) -> fx.GraphModule:
    started = time.perf_counter()
    graph = rewriting(program, plan)
    verify(graph, program, name)
    module = graph_module(graph, program.weights, f"{program.model}_{name}")
    elapsed_ms = 1000 * (time.perf_counter() - started)
    logger.info("%s of %s: %d nodes in %.0f ms", name, program.model, len(graph.nodes), elapsed_ms)
    if folder := os.environ.get("FXCACHE_DUMP"):
        dump(module, Path(folder), name)
    return module


def dump(module: fx.GraphModule, folder: Path, name: str) -> None:
    """Write ``module`` as numbered Python source, comments saying where each line comes from."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(
            f"cannot write graphs there: {error}",
            where=f"FXCACHE_DUMP={folder}",
            remedy="set FXCACHE_DUMP to a folder that can be made, or unset it",
        ) from error
    numbers = [int(m[1]) for p in folder.iterdir() if (m := re.match(r"(\d+)_", p.name))]
    path = folder / f"{max(numbers, default=-1) + 1:03d}_{type(module).__name__}.py"
    source = module.print_readable(print_output=False, include_device=True)
    path.write_text(f"# {name}\n{source}\n", encoding="utf-8")
