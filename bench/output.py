"""The command line of measurements whose only option is the output file."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def run(description: str | None, measure: Callable[[], dict[str, Any]]) -> None:
    """Print the result of ``measure`` as JSON, and write it to the file ``--out``, if any.

    Args:
        description: The description of the command, for ``--help``.
        measure: The measurement. It is called once, with one thread.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path)
    out: Path | None = parser.parse_args().out
    torch.set_num_threads(1)
    text = json.dumps(measure(), indent=2)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
    print(text)
