"""Tries the situations of public reports with fxcache: ``python -m bench.reports``.

It writes ``bench/results/reports.json`` after each report, so that ``--resume`` can continue, and
``docs/compatibility.md`` at the end. With words it tries the reports whose names contain one of
them. It fails if a situation does.
"""

import sys
import time
from importlib.metadata import version

from bench import compatibility
from bench.pipelines.check import described
from bench.reports.report import PublicReport
from bench.reports.situations import reports

RESULTS = "reports"


def main() -> int:
    arguments = compatibility.arguments(__doc__, "reports")
    known = compatibility.known(RESULTS, "faults", arguments)
    faults = {name: known[name] for name in reports() if name in known}
    for name, report in reports().items():
        if compatibility.is_wanted(name, arguments, known):
            faults[name] = tried(report)
            write(faults)
    compatibility.write()
    return int(any(faults.values()))


def write(faults: dict[str, list[str]]) -> None:
    versions = {package: version(package) for package in ("torch", "diffusers")}
    ordered = {name: faults[name] for name in reports() if name in faults}
    compatibility.store(RESULTS, {"versions": versions, "faults": ordered})


def tried(report: PublicReport) -> list[str]:
    """Try one report, and print what does not hold."""
    started = time.perf_counter()
    try:
        faults = report.attempt()
    except Exception as error:
        faults = [described(error)]
    seconds = time.perf_counter() - started
    lines = "; ".join(faults) or "holds"
    print(f"{report.name} ({seconds:.0f} s): {lines}", file=sys.stderr, flush=True)
    return faults


if __name__ == "__main__":
    sys.exit(main())
