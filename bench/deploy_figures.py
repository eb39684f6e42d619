"""The tables of artifacts and of serving in the guide."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate


def artifacts_table(forms: Mapping[str, Mapping[str, Any]]) -> str:
    """Return sizes and load times, from the results of ``bench.artifacts``."""
    rows = [
        {
            "bundled U-Net, refresh and reuse graph": name,
            "weights": megabytes(found["weights_bytes"]),
            "graphs and code": megabytes(found["other_bytes"]),
            "load, in a new process": f"{found['load_seconds']:.1f} s",
        }
        for name, found in forms.items()
    ]
    return table(rows)


def megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count else "inside the graphs"


def serving_table(measured: Mapping[str, Any]) -> str:
    """Return throughput and latencies, from the results of ``bench.serving``."""
    rows = [
        {
            f"{measured['requests']} requests, {measured['steps']} guided steps": name,
            "requests a second": f"{way['requests_per_second']:.1f}",
            "latency, median": f"{way['median_latency']:.1f} s",
            "latency, 95 %": f"{way['latency_95']:.1f} s",
            "rows a call": f"{way['mean_batch']:.1f}" if "mean_batch" in way else "2",
        }
        for name, way in measured["ways"].items()
    ]
    return table(rows)


def table(rows: list[dict[str, str]]) -> str:
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
