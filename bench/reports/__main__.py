"""Tries the situations of public reports with fxcache: ``python -m bench.reports``.

It writes ``bench/results/reports.json``, and ``docs/compatibility.md`` at the end. With words it
tries the reports whose names contain one of them. It fails if a situation does.
"""

import argparse
import logging
import sys
import time
import warnings
from importlib.metadata import version
from typing import Any

import torch

from bench import compatibility
from bench.pipelines.check import described
from bench.reports.report import PublicReport
from bench.reports.situations import reports

RESULTS = "reports"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only reports whose names contain one of these")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of pipelines, and about the short runs here
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    stored = compatibility.stored(RESULTS)["faults"] if arguments.words else {}
    faults: dict[str, Any] = {}
    for name, report in reports().items():
        if not arguments.words or any(word in name for word in arguments.words):
            faults[name] = tried(report)
        elif name in stored:
            faults[name] = stored[name]
    versions = {package: version(package) for package in ("torch", "diffusers")}
    compatibility.store(RESULTS, {"versions": versions, "faults": faults})
    compatibility.write()
    return int(any(faults.values()))


def tried(report: PublicReport) -> list[str]:
    """Try one report, and print what does not hold."""
    started = time.perf_counter()
    try:
        faults = report.attempt()
    except Exception as error:
        faults = [described(error)]
    seconds = time.perf_counter() - started
    print(f"{report.name} ({seconds:.0f} s): {'; '.join(faults) or 'holds'}", file=sys.stderr)
    return faults


if __name__ == "__main__":
    sys.exit(main())
