"""Exact counts of runs: steps, refreshes, waits of the host, and what it reads of tensors."""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fxcache.report.report import run_report
from fxcache.runtime.engine import Engine
from fxcache.runtime.record import Run

aten = torch.ops.aten

KEPT = ("started", "steps", "refreshes", "reasons")
WAITS = ("timestep_waits", "signal_waits", "guidance_waits")
WAITS_FOR_DEVICE = "called a synchronizing CUDA operation"
# Operators whose result the host reads, or whose result's size it needs.
READS = (
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.nonzero.default,
    aten.masked_select.default,
)


def runs_of(engine: Engine) -> list[dict[str, Any]]:
    """Return the schedule of each run, and how often the host waited for the device."""
    return [run_of(run) for run in list(engine.runs)]


def run_of(run: Run) -> dict[str, Any]:
    """Return the schedule of one run. Cache points in several groups have a schedule each."""
    reported = vars(run_report(run))
    found = {name: reported[name] for name in (*KEPT, *WAITS)}
    found["half_steps"] = len(reported["halved"])
    found["tabulated_steps"] = len(reported["tabulated"])
    if len(reported["schedule"]) > 1:
        found["computed"] = reported["schedule"]
    return found


@contextmanager
def device_waits() -> Iterator[list[str]]:
    """Yield a list of the warnings of PyTorch about waits for a CUDA device inside the block."""
    before, waits = torch.cuda.get_sync_debug_mode(), list[str]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", WAITS_FOR_DEVICE)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(before)
    texts = (str(warning.message) for warning in caught)
    waits += [text for text in texts if WAITS_FOR_DEVICE in text]


class HostReads(TorchDispatchMode):
    """Counts how often the host reads a tensor inside the block, by operator.

    If the tensor is on a GPU, each read waits for it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._counts: Counter[str] = Counter()

    @property
    def by_operator(self) -> dict[str, int]:
        """The number of reads by the name of the operator."""
        return dict(sorted(self._counts.items()))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in READS:
            self._counts[str(func)] += 1
        return func(*args, **(kwargs or {}))
