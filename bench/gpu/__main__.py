"""The command: ``python -m bench.gpu --out FOLDER``."""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bench import gpu
from bench.gpu.environment import environment_of
from bench.gpu.results import Results, Status
from bench.gpu.runner import DeviceLostError, run_part
from bench.gpu.setup import DRY_RUN, GPU, Setup
from bench.gpu.wheels import install

# Modules of this package, the most valuable first. They are imported after the environment
# variables are set that Triton reads at its import.
PARTS = (
    "kernel_checks",
    "correctness",
    "step_times",
    "kernel_times",
    "hoisting",
    "streams",
    "native",
    "batcher",
    "gate",
    "peers",
)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m bench.gpu", description=gpu.__doc__)
    top.add_argument("--out", type=Path, required=True, help="folder of results; continues from it")
    top.add_argument("--part", choices=PARTS, action="append", help="default: all")
    top.add_argument("--item", default="", help="only items whose name contains this text")
    top.add_argument("--dry-run", action="store_true", help="on the CPU, at tiny sizes")
    top.add_argument("--wheels", type=Path, help="folder of wheels to import packages from")
    top.add_argument("--seconds", type=float, default=float("inf"), help="start no item after this")
    top.add_argument("--retry", action="store_true", help="measure failed items again")
    top.add_argument("--revision", help="the revision of the code, outside of a git checkout")
    return top


def main(arguments: Sequence[str]) -> int:
    """Measure the missing items. Return 0 if all requested items are done, else 1."""
    options = parser().parse_args(arguments)
    setup = {True: DRY_RUN, False: GPU}[options.dry_run]
    if not setup.runtime.is_available():
        parser().error("there is no GPU; use --dry-run")
    deadline = time.monotonic() + options.seconds
    os.environ.update(setup.environment)
    with tempfile.TemporaryDirectory() as folder, setup.pretended():
        if options.wheels:
            install(options.wheels, Path(folder))
        try:
            return run_parts(options, setup, deadline)
        except DeviceLostError as error:
            print(f"the device is lost after {error}; a new process continues", flush=True)
    restart(arguments, deadline)
    return 1


def run_parts(options: argparse.Namespace, setup: Setup, deadline: float) -> int:
    """Run the parts one after the other, see ``main``."""
    environment = environment_of(setup, options.revision)
    left = 0
    for part in options.part or PARTS:
        every = import_module(f"bench.gpu.{part}").items(setup)
        items = [item for item in every if options.item in item.name]
        results = Results(options.out, part, environment)
        run_part(items, setup, results, deadline, options.retry)
        counts = Counter(results.status(item.name) for item in items)
        print(f"{part}: " + ", ".join(f"{n} {status}" for status, n in counts.items()), flush=True)
        left += len(items) - counts[Status.DONE]
    return int(left > 0)


def restart(arguments: Sequence[str], deadline: float) -> None:
    """Replace this process by a new one, which frees the device. Failed items stay failed."""
    kept = [argument for argument in arguments if argument != "--retry"]
    seconds = str(max(0.0, deadline - time.monotonic()))
    command = [sys.executable, "-m", "bench.gpu", *kept, "--seconds", seconds]
    os.execv(sys.executable, command)  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
