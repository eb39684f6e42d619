"""``fxcache report``: show a report that ``fxcache run --report FILE`` has saved."""

import argparse
from pathlib import Path

from fxcache.commands.options import Result
from fxcache.errors import ModelFileError
from fxcache.integrations.diffusers import parsed
from fxcache.report.text import as_text

REPORT = "a file written by `fxcache run --report FILE`"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("file", type=Path, help=REPORT)


def run(arguments: argparse.Namespace) -> Result:
    """Read the report, and format it."""
    data = parsed(arguments.file, REPORT)
    try:
        return Result(data, as_text(data))
    except (KeyError, TypeError) as error:
        raise ModelFileError(
            f"this is not an fxcache report: {error!r} is missing",
            where=str(arguments.file),
            remedy=f"pass {REPORT}",
        ) from error
