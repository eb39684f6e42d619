"""Checks every pipeline class that has a recipe: ``python -m bench.pipelines``.

It writes ``bench/results/pipelines.json`` after each class, so that ``--resume`` can continue. With
names of classes it prints their rows and writes nothing.
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

from bench.pipelines.check import check
from bench.pipelines.families import recipes

RESULTS = Path(__file__).parents[1] / "results" / "pipelines.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help="only these classes; write nothing")
    parser.add_argument("--resume", action="store_true", help="keep the existing rows")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    known: dict[str, Any] = {}
    if arguments.resume and RESULTS.exists():
        known = json.loads(RESULTS.read_text("utf-8"))["classes"]
    all_recipes = recipes()
    for kind in arguments.kinds or [kind for kind in all_recipes if kind not in known]:
        started = time.perf_counter()
        row = check(all_recipes[kind])
        seconds = time.perf_counter() - started
        lines = row.faults() or ["passes"]
        print(f"{kind} ({seconds:.0f} s): {'; '.join(lines)}", file=sys.stderr, flush=True)
        if arguments.kinds:
            print(json.dumps(row.to_dict(), indent=1))
        else:
            known[kind] = row.to_dict()
            write(known)


def write(rows: dict[str, Any]) -> None:
    versions = {"diffusers": diffusers.__version__, "torch": torch.__version__}
    data = versions | {"classes": dict(sorted(rows.items()))}
    RESULTS.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
