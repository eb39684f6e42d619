"""The calls of every kernel, from its ``examples.py``, or at small sizes in a dry run."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.gpu.setup import Setup

KERNELS = Path(__file__).parents[2] / "kernels"
FOLDERS = sorted(file.parent.name for file in KERNELS.glob("*/examples.py"))
FLOAT = torch.float32
# Arguments of ``examples.inputs`` with which Triton's interpreter takes milliseconds.
SMALL: Mapping[str, Callable[[Any, str], tuple[Any, ...]]] = {
    "concat_group_norm_silu": lambda e, device: e.inputs((1, 64, 32, 4), FLOAT, device),
    "forecast_read": lambda e, device: e.inputs((2, 3, 32), FLOAT, 2, device),
    "quantize_rows": lambda e, device: e.inputs((3, 32), FLOAT, device),
    "relative_l1": lambda e, device: e.inputs((2, 3, 32), FLOAT, device),
    "residual_norm_modulate": lambda e, device: e.inputs((2, 3, 32), FLOAT, device, order=1),
}


class Case(NamedTuple):
    """A call of a kernel. ``inputs`` makes the arguments of ``examples.run`` and ``.eager``."""

    name: str
    examples: Any  # the module fxcache.kernels.<kernel>.examples
    inputs: Callable[[], tuple[Any, ...]]


def cases(setup: Setup) -> list[Case]:
    """Return all calls at the sizes of real models, or one small call of each kernel."""
    return {True: real_cases, False: small_cases}[setup.full](setup.device)


def real_cases(device: str) -> list[Case]:
    modules = {name: examples_of(name) for name in FOLDERS}
    return [
        Case(f"{name}: {title}", examples, partial(inputs, device))
        for name, examples in modules.items()
        for title, inputs in examples.CASES.items()
    ]


def small_cases(device: str) -> list[Case]:
    return [
        Case(name, examples_of(name), partial(SMALL[name], examples_of(name), device))
        for name in FOLDERS
    ]


def examples_of(name: str) -> Any:
    return import_module(f"fxcache.kernels.{name}.examples")
