"""Checks the models of other packages: ``python -m bench.foreign``.

It writes ``bench/results/foreign.json`` after each row, so that ``--resume`` can continue, and
``docs/compatibility.md`` at the end. With words it checks the rows whose names contain one of them.
"""

import argparse
import logging
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from bench import compatibility
from bench.foreign.check import check
from bench.foreign.packages import recipes
from bench.foreign.torchvision_operators import declare_missing_operators

RESULTS = "foreign"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only rows whose names contain one of these")
    parser.add_argument("--resume", action="store_true", help="keep the existing rows")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of the packages
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    declare_missing_operators()
    known = stored() if arguments.resume or arguments.words else {}
    all_recipes = recipes()
    known = {name: row for name, row in known.items() if name in all_recipes}
    for name, recipe in all_recipes.items():
        if not wanted(name, arguments.words, known):
            continue
        started = time.perf_counter()
        row = check(recipe)
        seconds = time.perf_counter() - started
        lines = "; ".join(row.faults()) or "passes"
        print(f"{name} ({seconds:.0f} s): {lines}", file=sys.stderr, flush=True)
        known[name] = row.to_dict() | {"package": recipe.package}
        write(known)
    compatibility.write()


def stored() -> dict[str, Any]:
    exists = compatibility.path(RESULTS).exists()
    return dict(compatibility.stored(RESULTS)["rows"]) if exists else {}


def wanted(name: str, words: list[str], known: dict[str, Any]) -> bool:
    return any(word in name for word in words) if words else name not in known


def write(rows: dict[str, Any]) -> None:
    packages = sorted({row["package"] for row in rows.values()})
    found = {package: version_of(package) for package in ("torch", *packages)}
    compatibility.store(RESULTS, {"versions": found, "rows": dict(sorted(rows.items()))})


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
