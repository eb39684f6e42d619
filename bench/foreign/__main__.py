"""Checks the models of other packages: ``python -m bench.foreign``.

It writes ``bench/results/foreign.json`` after each row, so that ``--resume`` can continue, and
``docs/compatibility.md`` at the end. With words it checks the rows whose names contain one of them.
"""

import sys
import time
from typing import Any

from bench import compatibility
from bench.foreign.check import check
from bench.foreign.packages import recipes
from bench.foreign.torchvision_operators import declare_missing_operators
from fxcache.versions import version_of

RESULTS = "foreign"


def main() -> None:
    arguments = compatibility.arguments(__doc__, "rows")
    declare_missing_operators()
    known = compatibility.known(RESULTS, "rows", arguments)
    all_recipes = recipes()
    known = {name: row for name, row in known.items() if name in all_recipes}
    for name, recipe in all_recipes.items():
        if not compatibility.is_wanted(name, arguments, known):
            continue
        started = time.perf_counter()
        row = check(recipe)
        seconds = time.perf_counter() - started
        lines = "; ".join(row.faults()) or "passes"
        print(f"{name} ({seconds:.0f} s): {lines}", file=sys.stderr, flush=True)
        known[name] = row.to_dict() | {"package": recipe.package}
        write(known)
    compatibility.write()


def write(rows: dict[str, Any]) -> None:
    packages = sorted({row["package"] for row in rows.values()})
    versions = {package: version_of(package) or "not installed" for package in ("torch", *packages)}
    compatibility.store(RESULTS, {"versions": versions, "rows": dict(sorted(rows.items()))})


if __name__ == "__main__":
    main()
