"""This project's own gate: ``fxcache gate`` over the bundled models, and its kernels' resources.

``python -m bench.gate`` runs the command for each model, with the options and the file of expected
values of this project. Further options go to the command, such as ``--tier exact``, or
``--update --reason "why"``. The exact tier holds the resources of the Triton kernels too.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from bench.kernel_gate import CASE, check_kernels, update_kernels
from bench.known_launches import recorded
from fxcache import cli
from fxcache.commands.gate import FAILED, UPDATE, on_github, write_reports
from fxcache.commands.options import writable
from fxcache.gate.expected import expected_file
from fxcache.gate.output.text import as_text

HERE = Path(__file__).parent
EXPECTED = HERE / "expected" / "torch{torch}-{device}.json"
MODELS = {"emoji-sd": "red apple", "emoji-dit": "red apple"}  # with the prompt of each
STEPS = 20


def command(model: str, *options: str) -> list[str]:
    """Return the arguments of ``fxcache`` for one model."""
    fixed = ("--prompt", MODELS[model], "--steps", str(STEPS), "--expected", str(EXPECTED))
    return ["gate", str(HERE / "models" / model), *fixed, *options]


def gate_kernels(arguments: Sequence[str], reports: Sequence[str]) -> int:
    """Hold or update the resources of the kernels. Return the exit status."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--tier", action="append", default=[])
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--reason", default="")
    parser.add_argument("--html", type=Path)
    parser.add_argument("--junit", type=Path)
    options, _ = parser.parse_known_args([*arguments, *reports])
    file = expected_file(str(EXPECTED), "cpu")
    if options.tier and "exact" not in options.tier:
        return 0
    if options.update:
        update_kernels(file, options.reason)
        return 0
    outcome = check_kernels(file)
    if outcome is None:
        print(f"{CASE}: not compared; the recorded resources are of another version of Triton")
        return 0
    for report in filter(None, (options.html, options.junit)):
        writable(report)
    write_reports(outcome, options)
    print("\n".join((as_text(outcome, UPDATE), *on_github(outcome))))
    return 0 if outcome.passed else FAILED


def main(arguments: Sequence[str]) -> int:
    """Run the gate of each model and of the kernels. Return the greatest exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate", description=__doc__)
    parser.add_argument("--html", type=Path, help="the folder for a page for each model")
    parser.add_argument("--junit", type=Path, help="the folder for JUnit XML for each model")
    options, others = parser.parse_known_args(arguments)
    with recorded() if "--update" in others else nullcontext():
        statuses = [cli.main(command(m, *reports_of(m, options), *others)) for m in MODELS]
    return max([*statuses, gate_kernels(others, reports_of(CASE, options))])


def reports_of(case: str, options: argparse.Namespace) -> list[str]:
    """Return the options that name the reports of one case."""
    files = [
        (f"--{kind}", str(folder / f"{case}.{suffix}"))
        for kind, suffix in (("html", "html"), ("junit", "xml"))
        if (folder := getattr(options, kind))
    ]
    return [part for pair in files for part in pair]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
