"""The tables of ``docs/gpu.md``, from the results of ``python -m bench.gpu``."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

CHECKS = (
    "kernel_checks",
    "correctness",
    "hoisting",
    "streams",
    "native",
    "batcher",
)  # parts that compare results
Items = Mapping[str, Mapping[str, Any]]  # the items of one part, by name


def gpu_figures(parts: Mapping[str, Items]) -> str:
    """Return the figures of the page, from the items of each part.

    Args:
        parts: The content of ``bench/results/gpu``, by the name of the part.
    """
    return "\n\n".join(
        [
            machine_line(parts),
            step_table(parts["step_times"]),
            kernel_table(parts["kernel_times"]),
            hoisting_table(parts["hoisting"]),
            native_table(parts["native"]),
            batcher_table(parts["batcher"]),
            *([peers_table(parts["peers"])] if "peers" in parts else []),
            "\n".join(counts_line(part, parts[part]) for part in CHECKS),
        ]
    )


def machine_line(parts: Mapping[str, Items]) -> str:
    """Return the device and the versions. The tables hold results of one kind of device only."""
    environments = [item["environment"] for items in parts.values() for item in items.values()]
    keys = ("device", "torch", "triton", "driver")
    ((device, torch, triton, driver),) = {tuple(e[key] for key in keys) for e in environments}
    return f"Measured on one {device} with torch {torch}, Triton {triton} and driver {driver}."


def step_table(items: Items) -> str:
    """Return milliseconds of a step, and the speed-up realised beside the ideal one."""
    rows = []
    for name, item in items.items():
        found = item["result"]
        row = {
            "bfloat16, random weights": name,
            "original": milliseconds(found["original_ms"]),
            "refresh": milliseconds(found["refresh_ms"]),
            "reuse": milliseconds(found["reuse_ms"]),
        }
        for interval, speedup in found["intervals"].items():
            row[f"every {interval}: realised (ideal)"] = (
                f"{speedup['realised']:.2f}× ({speedup['ideal']:.2f}×)"
            )
        rows.append(row)
    return table(rows)


def kernel_table(items: Items) -> str:
    """Return microseconds of each kernel and of the alternatives."""
    ways = ("kernel", "inductor", "eager", "copy")
    rows = [
        {"one call": name}
        | {way: f"{item['result'][f'{way}_ms'] * 1000:.0f} µs" for way in ways}
        | {"share of the copy's bandwidth": f"{item['result']['share_of_copy']:.0%}"}
        for name, item in items.items()
    ]
    return table(rows)


def hoisting_table(items: Items) -> str:
    """Return the memory of each way to hoist, and the largest error of a step."""
    rows = [
        {
            "hoisted values": name,
            "weights not read in a step": mebibytes(found["hoisted_weight_bytes"]),
            "allocated before": mebibytes(found["allocated_before"]),
            "allocated after": mebibytes(found["allocated_hoisted"]),
            "largest error": error(found["largest_error"]),
        }
        for name, found in results_of(items)
    ]
    return table(rows)


def native_table(items: Items) -> str:
    """Return the times of a step in eager mode and as native code, and the error of native code."""
    rows = [
        {
            "one refresh in three steps": name,
            "eager": milliseconds(found["eager_ms"]),
            "native code": milliseconds(found["native_ms"]),
            "largest error": error(found["largest_error"]),
            "compiled in": f"{found['compile_seconds']:.0f} s",
            "code": mebibytes(found["compiled_bytes"]),
        }
        for name, found in results_of(items)
    ]
    return table(rows)


def batcher_table(items: Items) -> str:
    """Return the times of requests alone and together, in eager mode."""
    rows = [
        {
            "six requests, eager": name,
            "one after another": milliseconds(1000 * found["alone_seconds"]),
            "in a batcher": milliseconds(1000 * found["together_seconds"]),
            "steps for each call": f"{found['steps'] / found['calls']:.1f}",
            "largest error": error(found["largest_error"]),
        }
        for name, found in results_of(items)
    ]
    return table(rows)


def peers_table(items: Items) -> str:
    """Return the speed-up of each contender over the uncompiled model, or its error."""
    rows = [
        peers_row(name if name.endswith(contender) else f"{name}: {contender}", row)
        for name, item in items.items()
        for contender, row in rows_of(item).items()
    ]
    return table(rows)


def rows_of(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the rows of an item by contender; the error of an item that failed as its only row."""
    if "result" in item:
        rows: Mapping[str, Any] = item["result"]["rows"]
        return rows
    return {"all": {"error": item.get("error", "not measured").strip().rpartition("\n")[2]}}


def peers_row(name: str, found: Mapping[str, Any]) -> dict[str, str]:
    row = {"bfloat16, random weights": name, "refresh": "–", "reuse": "–", "waits": "–"}
    if "error" in found:
        return row | {"speed-up over uncompiled": f"`{found['error']}`"}
    times = {k: found[f"{k}_ms"] for k in ("refresh", "reuse") if found[f"{k}_ms"] is not None}
    speedup = "{speedup:.2f}× ({speedup_low:.2f}–{speedup_high:.2f})".format(**found)
    return (
        row
        | {kind: milliseconds(time) for kind, time in times.items()}
        | {"waits": str(found.get("waits", "–")), "speed-up over uncompiled": speedup}
    )


def results_of(items: Items) -> list[tuple[str, Any]]:
    return [(name, item["result"]) for name, item in items.items()]


def mebibytes(value: float) -> str:
    return f"{value / 2**20:.1f} MiB"


def error(value: float) -> str:
    return f"{value:.1g}" if value else "0"


def counts_line(part: str, items: Items) -> str:
    done = sum(item["status"] == "done" for item in items.values())
    return f"- `{part}`: {done} of {len(items)} measured items hold their promises."


def milliseconds(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def table(rows: list[dict[str, str]]) -> str:
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
