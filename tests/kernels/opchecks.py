"""PyTorch's checks of our operators, where kernels are compiled.

``python -m tests.kernels.opchecks`` prints the error of each operator's checks, by kernel.
"""

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from torch.library import opcheck

from fxcache.kernels.concat_group_norm_silu import op as concat_op
from fxcache.kernels.forecast_read import op as forecast_op
from fxcache.kernels.quantize_rows import op as quantize_op
from fxcache.kernels.relative_l1 import op as distance_op
from fxcache.kernels.residual_norm_modulate import op as norm_op

OPERATORS = (concat_op, forecast_op, quantize_op, distance_op, norm_op)  # whose import defines them
ours = torch.ops.fxcache
Calls = Iterator[tuple[Any, tuple[Any, ...]]]


def concat_group_norm_silu() -> Calls:
    a, b, w = torch.randn(2, 8, 4, 4), torch.randn(2, 4, 4, 4), torch.randn(12)
    for form in (torch.contiguous_format, torch.channels_last):
        first, second = a.contiguous(memory_format=form), b.contiguous(memory_format=form)
        yield ours.concat_group_norm_silu, (first, second, w, w, 3, 1e-5)
        yield ours.group_moments, (first, 3, 12, 0)
        yield ours.group_moments, (first[:0], 3, 12, 0)


def forecast_read() -> Calls:
    x = torch.randn(2, 3, 8)
    for terms in ([x], [x, x * 2], [x.mT, x.mT * 2]):
        yield ours.forecast_read, (terms, torch.ones(len(terms) - 1))


def quantize_rows() -> Calls:
    for rows in (torch.randn(3, 8), torch.randn(8, 3).mT):
        for dtype in (torch.int8, torch.float8_e4m3fn):
            yield ours.quantize_rows, (rows, dtype)


def relative_l1() -> Calls:
    now, then = torch.randn(2, 3, 8)
    yield ours.relative_l1, (now, then)


def residual_norm_modulate() -> Calls:
    x, scale = torch.randn(2, 3, 8), torch.randn(2, 8)
    steps, row_scale = [torch.ones(2, 3, 8, dtype=torch.int8)], torch.ones(2, 3, 1)
    for rms, keeps_total in product((False, True), repeat=2):
        options = (None, None, scale, scale, 1e-6, rms, keeps_total)
        for terms, weights in (([x + 1], None), ([x + 1, x * 2], torch.ones(1))):
            yield ours.residual_norm_modulate, (x, terms, weights, *options)
        yield ours.residual_norm_modulate, (x, steps, None, *options, row_scale, False)


CALLS: tuple[Callable[[], Calls], ...] = (
    concat_group_norm_silu,
    forecast_read,
    quantize_rows,
    relative_l1,
    residual_norm_modulate,
)


def error(calls: Callable[[], Calls]) -> str:
    """Check an operator's calls. Return the error; an empty text if there is none."""
    try:
        for operator, arguments in calls():
            opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
    except Exception:
        return traceback.format_exc()
    return ""


def main() -> None:
    json.dump({calls.__name__: error(calls) for calls in CALLS}, sys.stdout)


if __name__ == "__main__":
    main()
