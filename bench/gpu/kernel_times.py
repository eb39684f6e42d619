"""Times kernels at the sizes of real models, with Inductor, eager PyTorch and a copy beside.

The copy reads and writes as many bytes as the kernel. Results are medians. The L2 cache is flushed
before every call.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.gpu.items import Item
from bench.gpu.kernel_cases import Case, cases
from bench.gpu.setup import Setup
from bench.gpu.timing import kernel_ms
from fxcache.kernels.launches import identity, launches_of


def items(setup: Setup) -> Iterator[Item]:
    for case in cases(setup):
        yield Item(case.name, partial(measure, setup, case))


def measure(setup: Setup, case: Case) -> dict[str, Any]:
    """Return milliseconds, bytes, bandwidth, and the share of the copy's bandwidth."""
    examples, inputs = case.examples, case.inputs()
    nbytes = sum(launch.nbytes for launch in launches_of(lambda w: examples.run(w, *inputs)))
    source = torch.empty(nbytes // 2, dtype=torch.uint8, device=setup.device)
    target = torch.empty_like(source)
    torch.compiler.reset()
    inductor: Any = torch.compile(examples.eager, dynamic=False, **setup.compiled["compiled"])
    ways = {
        "kernel": lambda: examples.run(identity, *inputs),
        "eager": lambda: examples.eager(*inputs),
        "inductor": lambda: inductor(*inputs),
        "copy": lambda: target.copy_(source),
    }
    found = {f"{name}_ms": kernel_ms(setup, way) for name, way in ways.items()}
    kernel = found["kernel_ms"]
    return {
        **found,
        "bytes": nbytes,
        "gigabytes_per_second": nbytes / kernel / 1e6,
        "share_of_copy": found["copy_ms"] / kernel,
        "speedup_over_inductor": found["inductor_ms"] / kernel,
    }


def leaves(values: Any) -> list[Tensor]:
    """Return the tensors in nested lists and tuples."""
    if isinstance(values, list | tuple):
        return [leaf for value in values for leaf in leaves(value)]
    return [value for value in [values] if isinstance(value, Tensor)]
