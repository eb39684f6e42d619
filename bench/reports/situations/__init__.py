"""What tries the situation of each report, one file a kind of situations."""

import importlib
import pkgutil

from bench.reports.report import PublicReport


def reports() -> dict[str, PublicReport]:
    """Return all reports by name."""
    found: dict[str, PublicReport] = {}
    for entry in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{entry.name}")
        found |= {report.name: report for report in module.REPORTS}
    return dict(sorted(found.items(), key=lambda item: (item[0].lower(), item[0])))
