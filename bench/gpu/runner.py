"""Runs items one by one within a time limit, and saves each result and each failure at once."""

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

PART_SECONDS = 480.0  # after this time, no further item of a part begins
ITEM_SECONDS = 480.0  # after this time, an item counts as stuck, and the process ends


class DeviceLostError(Exception):
    """An error has made the device unusable for this process. Only a new process can continue."""


def run_part(
    items: Sequence[Item], setup: Setup, results: Results, deadline: float, retries: bool = False
) -> None:
    """Measure the missing items, until the part's time is over or the ``deadline`` is reached.

    Args:
        items: The items of one part, the most valuable first.
        setup: The device and the sizes.
        results: The results so far, which receive the new ones.
        deadline: A time of ``time.monotonic()`` after which no item begins.
        retries: Whether to measure failed items again.

    Raises:
        DeviceLostError: The device cannot be used any more.
    """
    deadline = min(deadline, time.monotonic() + PART_SECONDS)
    for item in pending(items, results, retries):
        if time.monotonic() >= deadline:
            return
        run_item(item, results)
        if not released(setup):
            raise DeviceLostError(item.name)


def pending(items: Sequence[Item], results: Results, retries: bool) -> list[Item]:
    """Return the items to measure. Interrupted items come last, because they may get stuck."""
    wanted = {Status.MISSING, Status.STARTED} | ({Status.FAILED} if retries else set())
    found = [item for item in items if results.status(item.name) in wanted]
    return sorted(found, key=lambda item: results.status(item.name) is Status.STARTED)


def run_item(item: Item, results: Results) -> None:
    """Measure an item and save the result, or the error with its traceback."""
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
    """End the process after ``ITEM_SECONDS``, and write the stacks of its threads to a file.

    There is no other way to stop a call that waits forever for the device.
    """
    with stacks.open("w", encoding="utf-8") as file:
        faulthandler.dump_traceback_later(ITEM_SECONDS, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    stacks.unlink()


def released(setup: Setup) -> bool:
    """Free the memory of the last item. Return False if the device cannot be used any more."""
    torch.compiler.reset()  # compiled graphs hold their model
    gc.collect()
    try:
        setup.runtime.synchronize()
        setup.runtime.empty_cache()
    except RuntimeError:
        return False
    return True
