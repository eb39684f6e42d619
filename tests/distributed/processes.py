"""Runs checks in two processes that share a model, with gloo on the CPU.

Processes take seconds to start, so that one pair of them runs many checks. A check that waits for
longer than ``PATIENCE`` fails.
"""

import datetime
import json
import os
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch.multiprocessing import get_context

NUM_PROCESSES = 2
PATIENCE = 60.0  # seconds that a process waits for another one, on a loaded machine
LIMIT = 240.0  # seconds for all checks together

IGNORED = (r"`torch\.distributed.*` is deprecated",)  # diffusers calls such functions

Outcomes = Mapping[str, str]  # the traceback of each check that failed, by name; empty if it passed


def run_checks(folder: Path, names: Sequence[str], patience: float = PATIENCE) -> Outcomes:
    """Run checks in two processes, and return how each ended.

    Args:
        folder: An empty folder, for the store of the processes and for their reports.
        names: The modules and names of the checks, in order. Each is a function of the rank of its
            process. After one that fails, no other one runs.
        patience: How many seconds a process waits for another one.
    """
    context = get_context("spawn")
    arguments = (folder, tuple(names), patience)
    processes = [
        context.Process(target=run_process, args=(rank, *arguments))
        for rank in range(NUM_PROCESSES)
    ]
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):  # read when a process imports torch
        for process in processes:
            process.start()
    end = time.monotonic() + LIMIT
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    return {name: "\n".join(filter(None, reports(folder, name))) for name in names}


def reports(folder: Path, name: str) -> list[str]:
    """Return the report of each process for one check: empty if it passed."""
    files = [folder / f"{name}.{rank}.json" for rank in range(NUM_PROCESSES)]
    return [
        json.loads(file.read_text("utf-8")) if file.exists() else f"{file.stem} did not end"
        for file in files
    ]


def run_process(rank: int, folder: Path, names: Sequence[str], patience: float) -> None:
    """Run the checks as the process ``rank``, and report each."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    for message in IGNORED:
        warnings.filterwarnings("ignore", message, FutureWarning)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=NUM_PROCESSES,
        timeout=datetime.timedelta(seconds=patience),
    )
    for name in names:
        start, found = time.monotonic(), ""
        try:
            module, _, check = name.rpartition(".")
            vars(import_module(module))[check](rank)
        except BaseException:
            found = traceback.format_exc()
        (folder / f"{name}.{rank}.json").write_text(json.dumps(found), "utf-8")
        (folder / f"{name}.{rank}.seconds").write_text(f"{time.monotonic() - start:.1f}", "utf-8")
        if found:
            os._exit(1)  # the other process would wait for this one
    dist.barrier()
    dist.destroy_process_group()


def on_all(value: object) -> list[object]:
    """Return the value that each process passes, by rank."""
    found: list[object] = [None] * NUM_PROCESSES
    dist.all_gather_object(found, value)
    return found
