"""Runs items one by one, within a time budget. Each result is saved at once, each failure too."""

import faulthandler
import gc
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bench.gpu.items import Item
from bench.gpu.results import Results, Status
from bench.gpu.setup import Setup

PART_SECONDS = 480.0  # after which no more item of a part begins in one call of the bench
ITEM_SECONDS = 480.0  # after which an item counts as stuck, and ends the process


class DeviceLostError(Exception):
    """An error left the device unusable for this process: only a new process can go on."""


def run_part(
    items: Sequence[Item], setup: Setup, results: Results, deadline: float, retries: bool = False
) -> None:
    """Measure what is missing, until the part's time or ``deadline`` is over.

    Args:
        items: Of one part, the most valuable first.
        setup: Where to measure.
        results: Which items are done, and where to write.
        deadline: By ``time.monotonic()``; no item begins after it.
        retries: Whether items that failed are measured again.

    Raises:
        DeviceLostError: If the device cannot be used any more.
    """
    deadline = min(deadline, time.monotonic() + PART_SECONDS)
    for item in pending(items, results, retries):
        if time.monotonic() >= deadline:
            return
        run_item(item, results)
        if not released(setup):
            raise DeviceLostError(item.name)


def pending(items: Sequence[Item], results: Results, retries: bool) -> list[Item]:
    """The items to measure, in order. What was cut off last time goes last: it may be stuck."""
    wanted = {Status.MISSING, Status.STARTED} | ({Status.FAILED} if retries else set())
    found = [item for item in items if results.status(item.name) in wanted]
    return sorted(found, key=lambda item: results.status(item.name) is Status.STARTED)


def run_item(item: Item, results: Results) -> None:
    """Measure and save it; an error is saved with its traceback."""
    results.write(item.name, Status.STARTED, {})
    started = time.monotonic()
    try:
        with ended_if_stuck(results.file.with_suffix(".stuck.txt")):
            outcome: tuple[Status, dict[str, Any]] = Status.DONE, {"result": item.measure()}
    except Exception:
        outcome = Status.FAILED, {"error": traceback.format_exc()}
    status, entry = outcome
    seconds = round(time.monotonic() - started, 1)
    results.write(item.name, status, {"seconds": seconds, **entry})
    print(f"{results.file.stem}: {item.name}: {status} ({seconds} s)", flush=True)


@contextmanager
def ended_if_stuck(stacks: Path) -> Iterator[None]:
    """End the process after ``ITEM_SECONDS``, with the stacks of its threads in that file.

    A call that waits for the device forever cannot be stopped in another way.
    """
    with stacks.open("w", encoding="utf-8") as file:
        faulthandler.dump_traceback_later(ITEM_SECONDS, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    stacks.unlink()


def released(setup: Setup) -> bool:
    """Free the memory of the last item; False if the device cannot be used any more."""
    torch.compiler.reset()  # compiled graphs hold their model
    gc.collect()
    try:
        setup.runtime.synchronize()
        setup.runtime.empty_cache()
    except RuntimeError:
        return False
    return True
