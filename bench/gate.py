"""This project's own gate: ``fxcache gate`` over the bundled models.

``python -m bench.gate`` runs the command for each model, with the options and the file of expected
values of this project. Further options go to the command, such as ``--tier exact``, or
``--update --reason "why"``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fxcache import cli

HERE = Path(__file__).parent
EXPECTED = HERE / "expected" / "torch{torch}-{device}.json"
MODELS = {"emoji-sd": "red apple", "emoji-dit": "red apple"}  # with the prompt of each
STEPS = 20


def command(model: str, *options: str) -> list[str]:
    """Return the arguments of ``fxcache`` for one model."""
    fixed = ("--prompt", MODELS[model], "--steps", str(STEPS), "--expected", str(EXPECTED))
    return ["gate", str(HERE / "models" / model), *fixed, *options]


def main(arguments: Sequence[str]) -> int:
    """Run the gate of each model. Return the greatest exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate", description=__doc__)
    parser.add_argument("--html", type=Path, help="the folder for a page for each model")
    parser.add_argument("--junit", type=Path, help="the folder for JUnit XML for each model")
    options, others = parser.parse_known_args(arguments)
    statuses = []
    for model in MODELS:
        files = [
            (f"--{kind}", str(folder / f"{model}.{suffix}"))
            for kind, suffix in (("html", "html"), ("junit", "xml"))
            if (folder := getattr(options, kind))
        ]
        reports = [part for pair in files for part in pair]
        statuses.append(cli.main(command(model, *reports, *others)))
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
