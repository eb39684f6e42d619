"""Kernels at the sizes of real models, against Inductor, eager PyTorch and a plain copy.

The copy reads and writes as many bytes as the kernel. Medians, with the L2 cache flushed before
every call.
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
from fxcache.kernels.launches import as_is, launches_of


def items(setup: Setup) -> Iterator[Item]:
    for case in cases(setup):
        yield Item(case.name, partial(measured, setup, case))


def measured(setup: Setup, case: Case) -> dict[str, Any]:
    """Milliseconds of each way, the kernel's bytes, its bandwidth and its share of a copy's."""
    examples, inputs = case.examples, case.inputs()
    nbytes = sum(launch.nbytes for launch in launches_of(lambda w: examples.run(w, *inputs)))
    source = torch.empty(nbytes // 2, dtype=torch.uint8, device=setup.device)
    target = torch.empty_like(source)
    torch.compiler.reset()
    inductor: Any = torch.compile(examples.eager, dynamic=False, **setup.compiled["compiled"])
    ways = {
        "kernel": lambda: examples.run(as_is, *inputs),
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
    """The tensors among nested lists and tuples."""
    if isinstance(values, list | tuple):
        return [leaf for value in values for leaf in leaves(value)]
    return [value for value in [values] if isinstance(value, Tensor)]
