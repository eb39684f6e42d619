"""Compares compiled steps with and without fxcache on the CPU, in one thread.

It compiles a U-Net and a FLUX with Inductor, with random weights, and writes the results of each
model to the output file at once.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import fxcache
from bench.compiled.models import MODELS
from bench.compiled.profile import profiled
from bench.compiled.timing import WAYS, Way, compiled, measured, pair, summary
from bench.environment import environment

INTERVALS = (2, 3, 5)
ROUNDS = 6


def model_results(name: str, rounds: int) -> dict[str, Any]:
    """Measure one model without hoisting first, then with hoisting and partial evaluation."""
    found: dict[str, Any] = {}
    plain: dict[int, float] = {}
    for label, way in WAYS.items():
        found[label] = way_results(name, way, rounds, plain)
        plain = plain or {item["interval"]: item["ideal"] for item in found[label]["intervals"]}
    return found


def way_results(name: str, way: Way, rounds: int, plain: dict[int, float]) -> dict[str, Any]:
    """Measure one model in one way.

    Args:
        name: The name of the model.
        way: How fxcache is used.
        rounds: The number of rounds at each interval.
        plain: The ideal speed-up by interval without hoisting; empty if this is without it.
    """
    model = MODELS[name]
    both = compiled(pair(model, way))
    intervals = []
    for interval in INTERVALS:
        timed = measured(both, model, way, interval, rounds)
        found = summary(timed, interval, plain.get(interval))
        intervals.append(found)
        print(name, way, json.dumps(found), flush=True)
    report = fxcache.report(both.optimised)
    return {
        "cut": report.captures[0].cut,
        "tabulated": len(report.runs[-1].tabulated),
        "intervals": intervals,
        "profile_ms": profiled(both, model, way),
    }


def profile_again(name: str, found: dict[str, Any]) -> None:
    """Replace the profiles in the results of one model. A run before them compiles."""
    model = MODELS[name]
    for label, way in WAYS.items():
        both = compiled(pair(model, way))
        measured(both, model, way, interval=2, rounds=0, length=4)
        found[label]["profile_ms"] = profiled(both, model, way)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, action="append", help="may be repeated")
    parser.add_argument(
        "--profiles", action="store_true", help="only measure profiles again, and keep the times"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds at each interval")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = arguments.out
    results = json.loads(out.read_text("utf-8")) if out.exists() else {"models": {}}
    results["environment"] = environment("cpu")
    # Kernels then appear in profiles by name. Their code stays the same.
    with torch._inductor.config.patch({"cpp.enable_kernel_profile": True}):
        for name in arguments.model or MODELS:
            if arguments.profiles:
                profile_again(name, results["models"][name])
            else:
                results["models"][name] = model_results(name, arguments.rounds)
            out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
