"""Checks every pipeline class that has a recipe: ``python -m bench.pipelines``.

It writes ``bench/results/pipelines.json`` after each class, so that ``--resume`` can continue, and
``docs/pipelines.md`` at the end. With names of classes it checks and writes only their rows.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch

from bench.pipelines import document
from bench.pipelines.check import check
from bench.pipelines.families import recipes

RESULTS = Path(__file__).parents[1] / "results" / "pipelines.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help="only these classes")
    parser.add_argument("--resume", action="store_true", help="keep the existing rows")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep = arguments.resume or arguments.kinds
    known = json.loads(RESULTS.read_text("utf-8"))["classes"] if keep and RESULTS.exists() else {}
    all_recipes = recipes()
    known = {kind: row for kind, row in known.items() if kind in all_recipes}
    for kind in arguments.kinds or [kind for kind in all_recipes if kind not in known]:
        started = time.perf_counter()
        row = check(all_recipes[kind])
        seconds = time.perf_counter() - started
        lines = row.faults() or ["passes"]
        print(f"{kind} ({seconds:.0f} s): {'; '.join(lines)}", file=sys.stderr, flush=True)
        known[kind] = row.to_dict()
        write(known)
    document.write(json.loads(RESULTS.read_text("utf-8")))


def write(rows: dict[str, Any]) -> None:
    versions = {"diffusers": diffusers.__version__, "torch": torch.__version__}
    data = versions | {"classes": dict(sorted(rows.items()))}
    RESULTS.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
