"""What kernels take on a GPU: ``python -m bench.kernels --out FILE``.

Each at the sizes of real models, against the same in PyTorch, eager and through Inductor, and
against a copy that reads and writes as many bytes. Medians in milliseconds, with the second-level
cache flushed before every call.
"""

import argparse
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.environment import environment
from fxcache.kernels.launches import as_is, launches_of

KERNELS = Path(__file__).parents[1] / "kernels"
FOLDERS = sorted(file.parent.name for file in KERNELS.glob("*/examples.py"))
Timer = Callable[[Callable[[], object]], float]


def measured(examples: Any, inputs: tuple[Any, ...], timer: Timer) -> dict[str, float]:
    """Milliseconds of each way, bytes that the kernel moves, its share of a copy's bandwidth."""
    nbytes = sum(launch.nbytes for launch in launches_of(lambda w: examples.run(w, *inputs)))
    device = next(value for value in flattened(inputs) if isinstance(value, Tensor)).device
    source = torch.empty(nbytes // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    inductor: Any = torch.compile(examples.eager, dynamic=False)
    ways = {
        "kernel": lambda: examples.run(as_is, *inputs),
        "eager": lambda: examples.eager(*inputs),
        "inductor": lambda: inductor(*inputs),
        "copy": lambda: target.copy_(source),
    }
    found = {f"{name}_ms": timer(way) for name, way in ways.items()}
    return {**found, "bytes": nbytes, "of_copy": found["copy_ms"] / found["kernel_ms"]}


def flattened(values: Any) -> list[Any]:
    if isinstance(values, list | tuple):
        return [leaf for value in values for leaf in flattened(value)]
    return [values]


def results(timer: Timer, device: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in FOLDERS:
        examples = import_module(f"fxcache.kernels.{name}.examples")
        found[name] = {
            case: measured(examples, inputs(device), timer)
            for case, inputs in examples.CASES.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no GPU: kernels are timed on one")
    from triton.testing import do_bench

    def timer(call: Callable[[], object]) -> float:
        return float(do_bench(call, return_mode="median"))

    found = {**environment("cuda"), "kernels": results(timer, "cuda")}
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
