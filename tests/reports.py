"""Run scripts, and print the report of each model that they optimised.

``python -m tests.reports SCRIPT...``. A script imports others from its own folder.
"""

import argparse
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import fxcache


def reports_of(script: Path) -> list[str]:
    """Return the printed report of each model that ``script`` optimised, at the first time."""
    optimize, models = fxcache.optimize, list[Any]()

    def noting(model: Any, *args: Any, **options: Any) -> Any:
        optimised = optimize(model, *args, **options)
        if not any(known is optimised for known in models):
            models.append(optimised)
        return optimised

    fxcache.optimize = noting
    sys.path.insert(0, str(script.parent))
    try:
        runpy.run_path(str(script))
    except SystemExit as ended:
        if ended.code:
            raise
    finally:
        fxcache.optimize = optimize
        sys.path.remove(str(script.parent))
    found = []
    for model in models:
        try:
            found.append(str(fxcache.report(model)))
        except fxcache.StateError:  # restored by the script
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scripts", nargs="+", type=Path)
    warnings.simplefilter("ignore", fxcache.FxcacheWarning)
    for script in parser.parse_args().scripts:
        print(f"# {script.name}")  # noqa: T201
        print("\n\n".join(reports_of(script)))  # noqa: T201


if __name__ == "__main__":
    main()
